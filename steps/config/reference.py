"""Every key of the config, read from the dataclasses, as the page docs/configuration.md.

python -m steps.config.reference > docs/configuration.md     # make reference
"""

import dataclasses
import inspect
import re
import typing
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from types import NoneType, UnionType
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import MISSING, DictConfig, ListConfig, OmegaConf

from steps.config import bounds
from steps.config.meanings import comments
from steps.config.root import CONF, Config, register

PAGE = "docs/configuration.md"
WORDS = {bool: "true or false", int: "an integer", float: "a number", str: "text"}
ESCAPED = str.maketrans({"<": "&lt;", ">": "&gt;", "*": r"\*", "|": r"\|"})
INTRODUCTION = f"""# Configuration

Every key of the config, with its default and what it may hold. Written by

    make reference        # python -m steps.config.reference > {PAGE}

from the dataclasses in `steps/config` and the files in `conf/`. A key is set by an override, the
same for every step: `-P evaluate.seed=1`, `-P overrides="evaluate=smoke evaluate.seed=1"`,
`make run OVERRIDES="evaluate.seed=1"` or `python -m steps.evaluate evaluate.seed=1`. A group such
as `evaluate` is chosen as a whole, by the name of a file in its folder, and single keys change what
the file says. What shall hold for all commands goes into `conf/local/default.yaml`, which git
ignores. `python -m steps.evaluate --cfg job` prints what a command would use.

The column *default* is what holds when nothing is overridden: for the group `model` of any model
whose file does not set the key, for all others with `model=smollm2_135m`.
"""


@dataclass(frozen=True)
class Key:
    """One key of the config."""

    name: str  # dotted
    takes: str  # what it may hold, in words
    meaning: str  # the comment beside or above the field
    default: Any  # of the dataclass; MISSING where a value is mandatory


@dataclass(frozen=True)
class Node:
    """A dataclass of the config."""

    name: str  # dotted key; empty for the root
    purpose: str  # first paragraph of its docstring
    keys: tuple[Key, ...]


def nodes(schema: type = Config, name: str = "") -> Iterator[Node]:
    """The dataclasses from ``schema`` downwards, each with the keys that hold values."""
    hints, meanings = typing.get_type_hints(schema), comments(schema)
    keys: list[Key] = []
    below: list[tuple[type, str]] = []
    for field in dataclasses.fields(schema):
        dotted = f"{name}.{field.name}" if name else field.name
        if (inner := _schema(hints[field.name])) is not None:
            below.append((inner, dotted))
        else:
            takes = _takes(hints[field.name], field.metadata.get(bounds.KEY))
            keys.append(Key(dotted, takes, meanings.get(field.name, ""), _default(field)))
    purpose = inspect.cleandoc(schema.__doc__ or "").partition("\n\n")[0]
    yield Node(name, " ".join(purpose.split()), tuple(keys))
    for inner, dotted in below:
        yield from nodes(inner, dotted)


def _schema(hint: Any) -> type | None:
    """The dataclass that a field holds, also where it may be null."""
    kinds = typing.get_args(hint) if isinstance(hint, UnionType) else (hint,)
    return next(
        (kind for kind in kinds if isinstance(kind, type) and dataclasses.is_dataclass(kind)), None
    )


def _takes(hint: Any, bound: bounds.Bound | None) -> str:
    kinds = typing.get_args(hint) if isinstance(hint, UnionType) else (hint,)
    (kind,) = (kind for kind in kinds if kind is not NoneType)
    inside = typing.get_args(kind)
    if typing.get_origin(kind) is list:
        words = f"a list of {bound.expected}" if bound else f"a list of {WORDS[inside[0]]}"
    elif typing.get_origin(kind) is dict:
        words = "a mapping"
    elif bound is not None:
        words = bound.expected
    elif issubclass(kind, Enum):
        words = " or ".join(f"`{member.value}`" for member in kind)
    else:
        words = WORDS[kind]
    return f"{words}, or null" if NoneType in kinds else words


def _default(field: "dataclasses.Field[Any]") -> Any:
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return field.default


def _composed() -> DictConfig:
    """What conf/config.yaml composes to, without the user's own conf/local."""
    register()
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose("config", overrides=_without_local())


def _without_local() -> list[str]:
    """The override that leaves conf/local out, where there is such a folder."""
    defaults = OmegaConf.load(CONF / "config.yaml").defaults
    entries = [str(name) for entry in defaults if isinstance(entry, DictConfig) for name in entry]
    groups = [name.removeprefix("optional ") for name in entries]
    there = (CONF / "local").is_dir()
    return [f"~{group}" for group in groups if there and group.partition("@")[0] == "local"]


def _shown(value: Any) -> str:
    if value is MISSING or value == "???":
        return "mandatory"
    if isinstance(value, Enum):
        value = value.value
    if isinstance(value, ListConfig | DictConfig):
        value = OmegaConf.to_container(value)
    if value is None:
        return "null"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, list):
        return f"`[{', '.join(map(str, value))}]`"
    if isinstance(value, dict):
        return f"`{{{', '.join(f'{key}: {one}' for key, one in value.items())}}}`"
    return f"`{value}`" if value != "" else '`""`'


def _choices(group: str) -> Iterator[str]:
    """A line for each file of a group, with the sentence that the file opens with."""
    for path in sorted((CONF / group).glob("*.yaml")):
        yield f"- `{group}={path.stem}`: {_plain(_sentence(path))}"


def _sentence(path: Path) -> str:
    first = [line for line in path.read_text("utf-8").splitlines()[:6] if line.startswith("# ")]
    # the first line is the command that uses the file
    return " ".join(line.removeprefix("# ") for line in first[1:])


def _plain(text: str) -> str:
    """``text`` as Markdown shows it letter for letter, but for what is code already."""
    parts = re.split(r"(`[^`]+`)", text.replace("``", "`"))
    return "".join(part if at % 2 else part.translate(ESCAPED) for at, part in enumerate(parts))


def page() -> str:
    """The whole page, in Markdown."""
    composed, parts = _composed(), [INTRODUCTION]
    for node in nodes():
        title = f"`{node.name}`" if node.name else "Inputs and single keys"
        parts.append(f"{'###' if '.' in node.name else '##'} {title}\n\n{_plain(node.purpose)}\n")
        if (CONF / node.name).is_dir() and node.name:
            parts.append("\n".join(_choices(node.name)) + "\n")
        if not node.keys:
            continue
        rows = ["| key | default | may be | meaning |", "| --- | --- | --- | --- |"]
        for key in node.keys:
            of_a_model = key.name.startswith("model.")
            default = key.default if of_a_model else OmegaConf.select(composed, key.name)
            cells = (f"`{key.name}`", _shown(default), key.takes, _plain(key.meaning))
            rows.append(f"| {' | '.join(cells)} |")
        parts.append("\n".join(rows) + "\n")
    return "\n".join(parts)


if __name__ == "__main__":
    print(page(), end="")
