"""``--help`` of an entry point: what it does, its groups and keys with defaults, an example."""

import inspect
import shutil
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import is_dataclass
from enum import Enum
from itertools import groupby
from typing import Any

from omegaconf import DictConfig, OmegaConf

from steps.config import meanings, schema
from steps.config.root import GROUPS
from steps.pipeline.definition import Step
from steps.pipeline.explain import options

NARROWEST, WIDEST = 100, 150  # columns that a line may take, whatever the terminal
KEY_COLUMN = 36  # columns of `key=default`
LONGEST_DEFAULT = 20  # characters of a default that are shown
WORDS = """\
Words are key=value in Hydra's grammar; `--cfg job` prints the whole config, `-m` runs once for each
of several values, and `-P key=value` of `mlflow run` is the same word."""


def text(step: Step, cfg: DictConfig) -> str:
    """The help.

    Args:
        step: what it is of.
        cfg: the composed config, whose values are shown as defaults.
    """
    columns = min(max(shutil.get_terminal_size().columns, NARROWEST), WIDEST)
    keys = list(_keys(step))
    groups = [group for group in GROUPS if group == "model" or _named(step, group)]
    docstring = inspect.cleandoc(sys.modules["__main__"].__doc__ or "")
    lines = [f"python -m {step.module} [key=value …]", "", docstring, "", WORDS]
    lines += ["", "Groups, each a file of conf/<group>/:"]
    for group in groups:
        other = "owner/name of the Hub, a folder /…, " if group == "model" else ""
        lines += _lines(f"{group}=…", other + ", ".join(options(group)), columns)
    lines += ["", "Keys, with what holds without them:"]
    for node, below in groupby(keys, lambda key: key.rpartition(".")[0]):
        if node:
            said = f"{node}.…  {meanings.meaning_of(node)}"
            lines += textwrap.wrap(said, columns, subsequent_indent="    ")
        for key in below:
            name = key.rpartition(".")[2]
            lines += _lines(f"{name}={_default(cfg, key)}", _meaning(key), columns)
    return "\n".join(lines)


def _named(step: Step, group: str) -> bool:
    return any(key.split(".")[0].rstrip("=") == group for key in step.own_keys())


def _keys(step: Step) -> Iterator[str]:
    """The dotted keys of leaves, those of a node before those of nodes below it; ``group=`` names a
    group without its keys.
    """
    every = list(schema.keys())
    for key in step.own_keys():
        if key.endswith("="):
            continue
        if is_dataclass(schema.kind_of(key)):
            below = [one for one in every if one.startswith(f"{key}.")]
            leaves = [one for one in below if not is_dataclass(schema.kind_of(one))]
            nodes = list(dict.fromkeys(one.rpartition(".")[0] for one in [f"{key}.", *below]))
            yield from sorted(leaves, key=lambda one: nodes.index(one.rpartition(".")[0]))
        else:
            yield key


def _lines(left: str, right: str, columns: int) -> list[str]:
    """Two columns, the right one wrapped."""
    width = max(KEY_COLUMN, len(left))
    wrapped = textwrap.wrap(right, columns - width - 3, break_on_hyphens=False) or [""]
    return [
        f"  {'' if at else left:{KEY_COLUMN if at else width}} {line}".rstrip()
        for at, line in enumerate(wrapped)
    ]


def _default(cfg: DictConfig, key: str) -> str:
    value: Any = OmegaConf.select(cfg, key, throw_on_missing=False)
    if OmegaConf.is_config(value):
        value = OmegaConf.to_container(value, resolve=True, enum_to_str=True)
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    shown = value.value if isinstance(value, Enum) else str(value).replace("'", "")
    return shown if len(str(shown)) <= LONGEST_DEFAULT else "…"


def _meaning(key: str) -> str:
    kind = schema.kind_of(key)
    said = meanings.meaning_of(key)
    if isinstance(kind, type) and issubclass(kind, Enum):
        said = f"{', '.join(str(one.value) for one in kind)}{f'; {said}' if said else ''}"
    return said
