"""Command-line words of an entry script, translated to what Hydra takes.

``model=Qwen/Qwen2.5-0.5B-Instruct`` and ``model=/models/mine`` name a repository or a folder that
no file of ``conf/model/`` describes: they become ``model=hub`` or ``model=local`` with its key.

``mlflow run`` shell-quotes every value: a bare ``{overrides}`` arrives as one word, an empty
default as ``''``, and an undeclared ``-P a.b=1`` as ``--a.b 1``. Hydra's parser takes none of the
three.
"""

import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException

from steps.config import schema
from steps.config.root import CONF
from steps.core.errors import ConfigError

FLAGS = frozenset({
    "-m", "--multirun", "--info", "--resolve", "-r", "--run", "-h", "--help", "--hydra-help",
    "--version", "-sc",
})  # fmt: skip
FLAGS_WITH_VALUE = frozenset({"-c", "--cfg", "-p", "--package", "-cd", "--config-dir"})
FREE_TEXT = frozenset({"reason"})  # keys whose values are sentences
PATH = ("/", "./", "../", "~")  # how a checkpoint folder begins where a model is named
INSPECTING = frozenset({
    "-c", "--cfg", "--info", "-h", "--help", "--hydra-help", "--version", "-sc",
})  # fmt: skip


@dataclass(frozen=True)
class Arguments:
    """What the user asked for."""

    overrides: tuple[str, ...]  # in Hydra's override grammar
    flags: tuple[str, ...]  # Hydra's own options

    @property
    def multirun(self) -> bool:
        return "-m" in self.flags or "--multirun" in self.flags

    @property
    def inspecting(self) -> bool:
        """Whether the words only ask to see something, so that no run is to be made."""
        return any(flag.split("=")[0] in INSPECTING for flag in self.flags)

    @property
    def helping(self) -> bool:
        """Whether the words ask what an entry point is; ``--hydra-help`` is Hydra's own."""
        return "-h" in self.flags or "--help" in self.flags

    def for_hydra(self) -> list[str]:
        return [*self.flags, *self.overrides]


def translate(words: Sequence[str]) -> Arguments:
    """Translate the words after the script's name.

    Args:
        words: such as ``["--model", "tiny_phi3", "--overrides", "onnx=fp32_cpu evaluate.seed=1",
            "--evaluate.pack", "smoke"]``.

    Raises:
        ConfigError: a word is neither an override nor an option, or an option has no value.
    """
    overrides: list[str] = []
    flags: list[str] = []
    pairs: list[tuple[str, str]] = []
    queue = list(words)
    while queue:
        word = queue.pop(0)
        if word == "--overrides":
            queue[:1] = _split(_value_of(word, queue))
        elif word in FLAGS or word.startswith(
            ("--cfg=", "--package=", "--info=", "--config-dir=", "--shell-completion")
        ):
            flags.append(word)
        elif word in FLAGS_WITH_VALUE:
            flags += [word, _value_of(word, queue)]
            queue.pop(0)
        elif word.startswith("--"):
            key, equals, value = word[2:].partition("=")
            if not equals:
                value = _value_of(word, queue)
                queue.pop(0)
            pairs.append((key, value))
        elif "=" in word.lstrip("+")[1:] or word.startswith("~"):
            overrides.append(word)
        elif word:
            cure = "-P belongs to `mlflow run`: leave it out" if word == "-P" else None
            expected = "key=value, a group choice such as model=tiny_phi3, or ~key"
            raise ConfigError("overrides", word, expected, cure)
    multirun = "-m" in flags or "--multirun" in flags
    shows = next((flag for flag in flags if flag.split("=")[0] in INSPECTING), None)
    if multirun and shows:
        raise ConfigError("overrides", f"-m {shows}", f"-m, which runs, or {shows}, which shows")
    if not multirun:
        overrides = [_sentence(word) for word in overrides]
    overrides += [_override(key, value, multirun) for key, value in pairs if value]
    words = [part for word in overrides for part in _any_model(word, multirun)]
    return Arguments(tuple(words), tuple(flags))


def _any_model(word: str, multirun: bool) -> list[str]:
    """The overrides of a model that is named by its repository or folder; any other as it is.

    Raises:
        ConfigError: the value may be both, or is several.
    """
    key, _, value = word.partition("=")
    if value[:1] in ("'", '"') and value[-1:] == value[:1]:
        value = value[1:-1]
    if key != "model" or not ("/" in value or value.startswith("~")):
        return [word]
    if multirun and "," in value:
        cure = "write model=hub model.repo=…,… or model=local model.path=…,…"
        raise ConfigError(key, value, "choices of conf/model/, where there are several", cure)
    if value.startswith(PATH):
        return ["model=local", _override("model.path", value, multirun)]
    if (CONF / "model" / f"{value}.yaml").is_file():
        return [word]
    if Path(value).is_dir():
        expected = "owner/name of a repository, or a folder that begins with / or ./"
        raise ConfigError(key, value, expected, f"the folder is there: pass model=./{value}")
    return ["model=hub", _override("model.repo", value, multirun)]


def _value_of(word: str, queue: Sequence[str]) -> str:
    if not queue:
        raise ConfigError(word.lstrip("-"), "", f"a value after {word}")
    return queue[0]


def _split(text: str) -> list[str]:
    try:
        return shlex.split(text)
    except ValueError as error:
        raise ConfigError("overrides", text, "closed quotes, as in a shell") from error


def _override(key: str, value: str, multirun: bool) -> str:
    """``key=value`` that Hydra reads as this one value, quoted where its grammar would read
    something else.
    """
    plain = f"{key}={value}"
    if value in ("null", "???"):
        return plain
    quoted = f"{key}='{_escaped(value)}'"
    if is_text(key) and not multirun:
        return quoted
    try:
        parsed = OverridesParser.create().parse_override(plain)
    except HydraException:
        return quoted
    return quoted if parsed.is_sweep_override() and not multirun else plain


def _sentence(word: str) -> str:
    """The override of a free text, quoted where Hydra would read a list of choices or nothing."""
    key, _, value = word.partition("=")
    if key.lstrip("+") not in FREE_TEXT or value[:1] in ("'", '"'):
        return word
    try:
        sweep = OverridesParser.create().parse_override(word).is_sweep_override()
    except HydraException:
        sweep = True
    return f"{key}='{_escaped(value)}'" if sweep else word


def _escaped(value: str) -> str:
    """``value`` for Hydra's single quotes, where a backslash is one unless a quote follows it."""
    return re.sub(r"(\\*)('|\Z)", lambda found: found[1] * 2 + (found[2] and "\\'"), value)


def is_text(key: str) -> bool:
    """Whether the dotted ``key`` is a string in the schema: an all-digit hash must not become a
    number.
    """
    return schema.kind_of(key.lstrip("+~")) is str
