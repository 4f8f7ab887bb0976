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
            entry scripts hand that on unchanged, and else all go into the one parameter
            ``overrides``.
        project: what is run: the folder, or a URL with ``-v`` and a commit.
    """
    words = ["mlflow", "run", *project]
    if entry_point != "main":
        words += ["-e", entry_point]
    words += ["--env-manager", "local"]
    given = list((parameters or {}).items())
    pairs = [_pair(override) for override in overrides]
    plain = [pair for pair in pairs if pair is not None]
    if len(plain) == len(pairs) and _independent([*given, *plain]):
        given += plain
    else:
        given.append(("overrides", " ".join(map(word, overrides))))
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


def _independent(pairs: Sequence[tuple[str, str]]) -> bool:
    """Whether the order of these does not count: no key is there twice, and none lies below another
    that is given as a mapping.
    """
    keys = [key for key, _ in pairs]
    mappings = tuple(f"{key}." for key, value in pairs if value.startswith("{"))
    return len(keys) == len(set(keys)) and not any(key.startswith(mappings) for key in keys)
