"""One YAML file of ``conf/``: its values, and where each stands."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from steps.config.root import ROOT
from steps.core.errors import ConfigError

PACKAGE = re.compile(r"^#\s*@package[ \t]+(\S+)", re.MULTILINE)
GLOBAL = "_global_"
Lines = Mapping[tuple[str, ...], int]


class ConfigFileError(ConfigError):
    """A fault of a YAML file.

    Args:
        path: of the file.
        line: where known.
        expected: what would be accepted.
        cure: what mends it.
        key: dotted, where the fault is of one.
        value: of that key.
    """

    def __init__(
        self,
        path: Path,
        line: int | None,
        expected: str,
        cure: str | None = None,
        *,
        key: str = "",
        value: object = None,
    ) -> None:
        super().__init__(key, value, expected, cure)
        self.path, self.line = path, line
        said = f"{key}={value!r}: expected {expected}" if key else f"expected {expected}"
        said = f"{said}; {cure}" if cure else said
        self.args = (f"{shown(path)}:{line}: {said}" if line else f"{shown(path)}: {said}",)


@dataclass(frozen=True)
class Content:
    """A file that could be read: its values, and the line of each key."""

    values: dict[str, Any]
    lines: Lines
    package: str  # dotted key below which the values are; empty is the whole config

    def line_of(self, key: str) -> int | None:
        """Line of a dotted key of the config; None where the file does not have it."""
        prefix = f"{self.package}." if self.package else ""
        for parts, line in self.lines.items():
            if prefix + ".".join(parts) == key:
                return line
        return None

    def value_of(self, key: str) -> object:
        """What the file has for a dotted key of the config, an interpolation as it is written; None
        where it has nothing.
        """
        prefix = f"{self.package}." if self.package else ""
        node: object = self.values
        for name in key.removeprefix(prefix).split("."):
            node = node.get(name) if isinstance(node, dict) else None
        return node


def shown(path: Path) -> str:
    """A path as a user of the project knows it."""
    return str(path.relative_to(ROOT) if path.is_relative_to(ROOT) else path)


def read(path: Path, group: str) -> Content:
    try:
        raw = path.read_bytes()
        text = raw.decode()
    except OSError as error:
        raise ConfigFileError(path, None, f"a file that can be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        raise ConfigFileError(path, line, "text in UTF-8", "save the file as UTF-8") from error
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        values = OmegaConf.to_container(OmegaConf.create(text)) if node is not None else {}
    except yaml.YAMLError as error:
        raise _syntax(path, text, error) from error
    except OmegaConfBaseException as error:  # an interpolation that is not closed
        said = str(error).splitlines()[0]
        raise ConfigFileError(path, None, f"values that OmegaConf reads ({said})") from error
    if node is None and group:
        raise ConfigFileError(
            path,
            None,
            "keys, and the file is empty",
            f"begin with `defaults: [schema]`; the keys are those below {group} in `--cfg job`",
        )
    if node is not None and not isinstance(node, yaml.MappingNode):
        kind = "a list" if isinstance(node, yaml.SequenceNode) else "one value"
        raise ConfigFileError(
            path,
            node.start_mark.line + 1,
            f"keys with values, such as `key: value`, not {kind}",
            "write one key a line, without a dash before it",
        )
    header = PACKAGE.search(text[:512])  # as far as Hydra looks
    package = header[1] if header and group else group
    lines = dict(_lines(node, ())) if node is not None else {}
    assert isinstance(values, dict)
    named = {str(key): value for key, value in values.items()}
    return Content(named, lines, "" if package == GLOBAL else package.replace("_group_", group))


def _syntax(path: Path, text: str, error: yaml.YAMLError) -> ConfigFileError:
    mark = getattr(error, "problem_mark", None)
    begun = getattr(error, "context_mark", None)
    lines = text.splitlines()
    if mark and begun and mark.line >= len(lines):  # the end came before what was begun ended
        mark = begun
    problem = getattr(error, "problem", None) or getattr(error, "reason", None) or str(error)
    line = mark.line + 1 if mark else None
    if "\t" in "".join(lines[line - 1 : line] if line else ()):
        return ConfigFileError(path, line, "spaces, and there is a tab", "indent with spaces")
    if "duplicate key" in problem:
        key = problem.rpartition(" ")[2]
        return ConfigFileError(path, line, f"each key once, and {key} is there again")
    said = " ".join(str(problem).split())
    return ConfigFileError(path, line, f"valid YAML ({said})", "see the line, and the one before")


def _lines(node: yaml.Node, above: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], int]]:
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            parts = (*above, str(key.value))
            yield parts, key.start_mark.line + 1
            yield from _lines(value, parts)
