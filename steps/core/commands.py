"""Texts of the commands that messages and tags tell a user to run."""

import re
import shlex
from collections.abc import Mapping, Sequence

KEY = re.compile(r"[A-Za-z_][\w.]*")
BARE = re.compile(r"[\w@%+=:,./-]+", re.ASCII)  # words that no shell reads as anything else
QUOTED = re.compile(r"'([^'\\]*)'|\"([^\"\\]*)\"")  # by Hydra, without an escape within
# what Hydra reads as another type than text, unless it is quoted
TYPED = re.compile(
    r"(?i)[-+]?([0-9][0-9_]*\.?[0-9_]*|\.[0-9_]+)(e[-+]?[0-9_]+)?|true|false|null|[-+]?inf|nan"
    r"|[\[{].*|\w+\(.*\)|\?\?\?|\s.*|.*\s"
)
PLAIN_TEXT = re.compile(r"[\w./:@-]+", re.ASCII)  # read by Hydra as it stands
SPLIT = re.compile(r"[\s'\"\\#]")  # what shlex takes for more than a letter
NOT_IN_DOUBLE_QUOTES = re.compile(r"[$`!]")


def mlflow_run(
    entry_point: str = "main",
    parameters: Mapping[str, str] | None = None,
    overrides: Sequence[str] = (),
    *,
    project: Sequence[str] = (".",),
) -> str:
    """The `mlflow run` command of an entry point, quoted for a POSIX shell and for a reader.

    Args:
        entry_point: ``main`` is MLflow's default and is left out.
        parameters: values of ``-P`` by name.
        overrides: in Hydra's grammar; each is a ``-P key=value`` of its own where MLflow and the
            entry scripts hand that on unchanged, and the others stand together in the one parameter
            ``overrides``.
        project: what is run: the folder, or a URL with ``-v`` and a commit.
    """
    words = ["mlflow", "run", *project]
    if entry_point != "main":
        words += ["-e", entry_point]
    words += ["--env-manager", "local"]
    given = list((parameters or {}).items())
    pairs = [_pair(override) for override in overrides]
    rest = [override for override, pair in zip(overrides, pairs, strict=True) if pair is None]
    plain = [pair for pair in pairs if pair is not None]
    if _order_counts([*given, *plain], rest):
        plain, rest = [], list(overrides)
    given += plain
    if rest:
        given.append(("overrides", " ".join(map(_inner, rest))))
    items = [f"{name}={word(value)}" for name, value in given]
    return " ".join([*map(word, words), *(text for item in items for text in ("-P", item))])


def word(text: str) -> str:
    """A text as one word of a POSIX shell: bare, else in double quotes, else in single ones."""
    if BARE.fullmatch(text):
        return text
    if NOT_IN_DOUBLE_QUOTES.search(text) or ('"' in text and "'" not in text):
        return shlex.quote(text)
    escaped = re.sub(r'(["\\])', r"\\\1", text)
    return f'"{escaped}"'


def _pair(override: str) -> tuple[str, str] | None:
    """Key and value of an override that means the same as ``-P key=value``; None where it does not,
    as ``+key=1``, ``~key`` or a value that only its quotes keep a text.
    """
    key, equals, value = override.partition("=")
    if not (equals and value and KEY.fullmatch(key)):
        return None
    if quoted := QUOTED.fullmatch(value):
        inside = quoted[1] if quoted[1] is not None else quoted[2]
        return None if not inside or TYPED.fullmatch(inside) else (key, inside)
    return None if "\\" in value or value[0] in "'\"" else (key, value)


def _inner(override: str) -> str:
    """An override as one word of those that ``shlex.split`` takes apart, which minds less than a
    shell does, and without Hydra's quotes where they change nothing.
    """
    key, equals, value = override.partition("=")
    quoted = QUOTED.fullmatch(value)
    if quoted and PLAIN_TEXT.fullmatch(quoted[1] or "") and not TYPED.fullmatch(quoted[1]):
        override = f"{key}{equals}{quoted[1]}"
    return override if not SPLIT.search(override) else word(override)


def _order_counts(pairs: Sequence[tuple[str, str]], rest: Sequence[str]) -> bool:
    """Whether the overrides mean something else in another order: a key is there twice, or lies
    below another that is given as a mapping or is taken out, or words are for a multirun.
    """
    keys = [key for key, _ in pairs] + [one.lstrip("+~").partition("=")[0] for one in rest]
    wholes = tuple(
        f"{key}."
        for key, value in (*pairs, *(one.lstrip("+").partition("=")[::2] for one in rest))
        if value.startswith("{")
    ) + tuple(f"{one[1:].partition('=')[0]}." for one in rest if one.startswith("~"))
    return (
        len(keys) != len(set(keys))
        or any(key.startswith(wholes) for key in keys)
        or any(one.startswith("-") for one in rest)
    )
