"""What is wrong with a YAML file of ``conf/``, each fault with its file, line and key."""

import dataclasses
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

from steps.config import bounds, schema
from steps.config.root import CONF, ROOT
from steps.core.errors import ConfigError
from steps.pipeline.explain import expectation, meant

LOCAL = CONF / "local" / "default.yaml"
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
class _Content:
    """A file that could be read: its values, and the line of each key."""

    values: dict[str, Any]
    lines: Lines
    package: str  # dotted key below which the values are; empty is the whole config


def shown(path: Path) -> str:
    """A path as a user of the project knows it."""
    return str(path.relative_to(ROOT) if path.is_relative_to(ROOT) else path)


def faults(path: Path, group: str) -> list[ConfigFileError]:
    """All faults of one file that can be seen without composing the config.

    Args:
        path: of the file.
        group: that it is a choice of, such as ``promotion``; empty for ``conf/local/``.
    """
    try:
        content = _read(path, group)
    except ConfigFileError as error:
        return [error]
    node = schema.kind_of(content.package)
    if node is None:
        cure = f"drop the line, or write # @package {GLOBAL}"
        return [ConfigFileError(path, 1, f"a package of the config, not {content.package}", cure)]
    values = {key: value for key, value in content.values.items() if key != "defaults"}
    return list(_below(path, content, node, values, ()))


def whole(path: Path, group: str) -> list[ConfigError]:
    """What the schema says of a file without faults of its own, all its keys together.

    Args:
        path: of the file, which need not lie in ``conf/``.
        group: its group; nothing is said of a file of ``conf/local/``, which is a part.
    """
    content = _read(path, group)
    kind: Any = schema.kind_of(content.package)
    if not content.package or not dataclasses.is_dataclass(kind):
        return []
    values = {key: value for key, value in content.values.items() if key != "defaults"}
    try:
        OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(kind), values))
    except ConfigError as error:
        line = _line_of(content, error.field)
        return [
            ConfigFileError(
                path, line, error.expected, error.cure, key=error.field, value=error.value
            )
        ]
    except MissingMandatoryValue as error:
        key = f"{content.package}.{error.full_key}"
        return [ConfigFileError(path, None, "a value, as it is mandatory", key=key, value="???")]
    except OmegaConfBaseException:  # an interpolation into the rest of the config
        return []
    return []


def located(error: ConfigError, overrides: Sequence[str]) -> ConfigError:
    """The same error with file and line, where a chosen file gave the value; as it is where it came
    from the command line, or is lacking.
    """
    given = any(word.lstrip("+").partition("=")[0] == error.field for word in overrides)
    if given or error.value is None:
        return error
    for path, group in reversed(chosen(overrides)):
        try:
            content = _read(path, group)
        except ConfigFileError:
            continue
        if line := _line_of(content, error.field):
            return ConfigFileError(
                path, line, error.expected, error.cure, key=error.field, value=error.value
            )
    return error


def chosen(overrides: Sequence[str]) -> list[tuple[Path, str]]:
    """Files that ``overrides`` choose, with their groups, the last of which has the last word."""
    defaults = yaml.safe_load((CONF / "config.yaml").read_text(encoding="utf-8"))["defaults"]
    choices = {
        group: str(name)
        for entry in defaults
        if isinstance(entry, dict)
        for group, name in entry.items()
        if " " not in group
    }
    for word in overrides:
        group, _, name = word.lstrip("+").partition("=")
        if group in choices:
            choices[group] = name
    files = [(CONF / group / f"{name}.yaml", group) for group, name in choices.items()]
    return [(path, group) for path, group in [*files, (LOCAL, "")] if path.is_file()]


def require_content(overrides: Sequence[str]) -> None:
    """Refuse a chosen file that is empty: Hydra would take the schema's defaults without a word.

    Raises:
        ConfigFileError: naming the file.
    """
    for path, group in chosen(overrides):
        if group and not path.read_text(encoding="utf-8").strip():
            _read(path, group)


def first_fault(overrides: Sequence[str]) -> ConfigFileError | None:
    """The first fault of the files that ``overrides`` choose."""
    return next((fault for path, group in chosen(overrides) for fault in faults(path, group)), None)


def _read(path: Path, group: str) -> _Content:
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
    return _Content(named, lines, "" if package == GLOBAL else package.replace("_group_", group))


def _line_of(content: _Content, key: str) -> int | None:
    """Line of a dotted key of the config, or of the node that holds it whole."""
    prefix = f"{content.package}." if content.package else ""
    for parts, line in content.lines.items():
        if prefix + ".".join(parts) == key:
            return line
    return None


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


def _below(
    path: Path, content: _Content, node: Any, values: Mapping[Any, Any], above: tuple[str, ...]
) -> Iterator[ConfigFileError]:
    """Faults of the values of one dataclass, and of those below."""
    fields = {field.name: field for field in dataclasses.fields(node)}
    typed = OmegaConf.structured(node)
    for name, value in values.items():
        parts = (*above, str(name))
        key = ".".join([*filter(None, [content.package]), *parts])
        line = content.lines.get(parts)
        if name not in fields:
            yield _unknown(path, line, key, value, above, content)
            continue
        kind: Any = schema.kind_of(key)
        if dataclasses.is_dataclass(kind) and isinstance(value, Mapping):
            yield from _below(path, content, kind, value, parts)
            continue
        if dataclasses.is_dataclass(kind) and value is not None:
            cure = f"write its keys below {name}:, two spaces further in"
            yield ConfigFileError(path, line, "keys with values", cure, key=key, value=value)
            continue
        if isinstance(value, str) and ("${" in value or value == "???"):
            continue
        try:
            typed[name] = value
        except OmegaConfBaseException as error:
            said = expectation(str(error))
            if value is None:
                said = f"a value, as `{name}:` alone is null"
            yield ConfigFileError(path, line, said, key=key, value=value)
            continue
        bound = fields[name].metadata.get(bounds.KEY)
        given = typed[name]
        if bound is None or given is None:
            continue
        if not all(map(bound.holds, given if isinstance(value, list) else [given])):
            yield ConfigFileError(path, line, bound.expected, key=key, value=value)


def _unknown(
    path: Path,
    line: int | None,
    key: str,
    value: object,
    above: tuple[str, ...],
    content: _Content,
) -> ConfigFileError:
    """The error of a key that the config does not have, with those that may be meant."""
    known = list(schema.keys())
    prefix = key.rpartition(".")[0]
    siblings = [name for name in known if name.rpartition(".")[0] == prefix]
    hint, name = meant(key), key.rpartition(".")[2]
    if not above and name == content.package:
        hint = f"leave {name}: out, as a file of conf/{name}/ has its keys at the top"
    short = value if not isinstance(value, dict | list) else "…"
    cure = hint or f"known keys: {', '.join(siblings)}"
    return ConfigFileError(path, line, "a key of the config", cure, key=key, value=short)
