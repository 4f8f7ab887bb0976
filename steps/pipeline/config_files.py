"""What is wrong with a YAML file of ``conf/``, each fault with its file, line and key."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

from steps.config import bounds, schema
from steps.config.root import CONF, GROUPS
from steps.core.errors import ConfigError
from steps.pipeline.config_file import GLOBAL, ConfigFileError, Content, read
from steps.pipeline.explain import expectation, meant, no_such_choice, options

LOCAL = CONF / "local" / "default.yaml"
SUFFIXES = (".yaml", ".yml")


def faults(path: Path, group: str) -> list[ConfigFileError]:
    """All faults of one file that can be seen without composing the config.

    Args:
        path: of the file.
        group: that it is a choice of, such as ``promotion``; empty for ``conf/local/``.
    """
    try:
        content = read(path, group)
    except ConfigFileError as error:
        return [error]
    node = schema.kind_of(content.package)
    if node is None:
        cure = f"drop the line, or write # @package {GLOBAL}"
        return [ConfigFileError(path, 1, f"a package of the config, not {content.package}", cure)]
    values = {key: value for key, value in content.values.items() if key != "defaults"}
    return [*_of_defaults(path, content, group), *_below(path, content, node, values, ())]


def whole(path: Path, group: str, without: Sequence[str] = ()) -> list[ConfigError]:
    """What the schema says of the keys of a file together, each key at fault once.

    Args:
        path: of the file, which need not lie in ``conf/``.
        group: its group; nothing is said of a file of ``conf/local/``, which is a part.
        without: dotted keys that are known to be at fault.
    """
    try:
        content = read(path, group)
    except ConfigFileError:
        return []
    kind: Any = schema.kind_of(content.package)
    if not content.package or not dataclasses.is_dataclass(kind):
        return []
    values = {key: value for key, value in content.values.items() if key != "defaults"}
    prefix, found, dropped = f"{content.package}.", list[ConfigError](), {*without}
    for key in without:
        _drop(values, key.removeprefix(prefix))
    while True:
        try:
            OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(kind), values))
        except ConfigError as error:
            where = content.line_of(error.field)
            found.append(
                ConfigFileError(
                    path, where, error.expected, error.cure, key=error.field, value=error.value
                )
            )
            if error.field in dropped or not _drop(values, error.field.removeprefix(prefix)):
                return found
            dropped.add(error.field)
        except MissingMandatoryValue as error:
            key = f"{prefix}{error.full_key}"
            if key not in dropped:
                found.append(
                    ConfigFileError(path, None, "a value, as it is mandatory", key=key, value="???")
                )
            return found
        except OmegaConfBaseException:  # an interpolation into the rest of the config
            return found
        else:
            return found


def _drop(values: dict[str, Any], key: str) -> bool:
    """Take the value at a dotted key out; False where there is none."""
    *above, last = key.split(".")
    node: Any = values
    for name in above:
        node = node.get(name) if isinstance(node, dict) else None
    if not isinstance(node, dict) or last not in node:
        return False
    del node[last]
    return True


def _of_defaults(path: Path, content: Content, group: str) -> Iterator[ConfigFileError]:
    """Faults of the file's ``defaults``: choices that are not there."""
    entries = content.values.get("defaults", [])
    line = content.lines.get(("defaults",))
    if not isinstance(entries, list):
        expected = "a list, such as `defaults: [schema]`"
        yield ConfigFileError(path, line, expected, key="defaults", value=entries)
        return
    if group and path.stem in _included(path.stem, group):
        expected = "files that do not lead back to this one"
        yield ConfigFileError(path, line, expected, key="defaults", value=entries)
        return
    for entry in entries:
        pairs = entry.items() if isinstance(entry, dict) else [(group, entry)]
        for key, name in pairs:
            if str(key).startswith("optional "):
                continue
            chosen_group = str(key).removeprefix("override ").lstrip("/").partition("@")[0]
            known = [*options(chosen_group), "schema", "_self_"]
            absolute = str(key).removeprefix("override ").startswith("/")
            overriding = str(key).startswith("override ")
            if (
                isinstance(entry, dict)
                and chosen_group in GROUPS
                and absolute != overriding
                and "@" not in str(key)
            ):
                expected = "`override /` before a group that conf/config.yaml has chosen"
                cure = f"write `- override /{chosen_group}: {name}`"
                yield ConfigFileError(path, line, expected, cure, key="defaults", value=entry)
                continue
            if chosen_group in GROUPS and str(name) not in known:
                said = no_such_choice(chosen_group, str(name))
                yield ConfigFileError(
                    path, line, said.expected, said.cure, key=chosen_group, value=name
                )


def _included(name: str, group: str) -> set[str]:
    """Files of a group that one of its files takes in by its ``defaults``, and those take in."""
    found: set[str] = set()
    queue = [name]
    while queue:
        path = CONF / group / f"{queue.pop()}.yaml"
        try:
            entries = read(path, group).values.get("defaults", [])
        except ConfigFileError:
            continue
        names = {entry for entry in entries or () if isinstance(entry, str)} - found
        found |= names
        queue += names
    return found


def located(error: ConfigError, overrides: Sequence[str]) -> ConfigError:
    """The same error with file and line, where a chosen file gave the value; as it is where it came
    from the command line, or is lacking.
    """
    if any(word.lstrip("+").partition("=")[0] == error.field for word in overrides):
        return error
    for path, group in reversed(chosen(overrides)):
        try:
            content = read(path, group)
        except ConfigFileError:
            continue
        line = content.line_of(error.field)
        value = content.value_of(error.field) if error.value is None else error.value
        if line and value is not None:
            return ConfigFileError(
                path, line, error.expected, error.cure, key=error.field, value=value
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


def require_default_name() -> None:
    """Refuse a file of ``conf/local/`` that nothing reads: Hydra would leave it out without a word.

    Raises:
        ConfigFileError: naming the file.
    """
    folder = LOCAL.parent
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        if path == LOCAL and not path.is_file():
            raise ConfigFileError(path, None, "a file, not a folder or a link to nothing")
        if path.suffix in SUFFIXES and path != LOCAL:
            expected = f"a file named {LOCAL.name}, the only one of conf/local/ that is read"
            raise ConfigFileError(path, None, expected, "rename it, or take it away")


def local_keys() -> list[str]:
    """Dotted keys that ``conf/local/default.yaml`` sets, choices of files not among them."""
    if not LOCAL.is_file():
        return []
    lines = read(LOCAL, "").lines
    inner = {parts[:-1] for parts in lines}
    leaves = (parts for parts in lines if parts not in inner and parts[0] != "defaults")
    return [".".join(parts) for parts in leaves]


def require_content(overrides: Sequence[str]) -> None:
    """Refuse a chosen file that is empty: Hydra would take the schema's defaults without a word.

    Raises:
        ConfigFileError: naming the file.
    """
    for path, group in chosen(overrides):
        if group:
            read(path, group)


def first_fault(overrides: Sequence[str]) -> ConfigFileError | None:
    """The first fault of the files that ``overrides`` choose."""
    return next((fault for path, group in chosen(overrides) for fault in faults(path, group)), None)


def _below(
    path: Path, content: Content, node: Any, values: Mapping[Any, Any], above: tuple[str, ...]
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
            if str(value) in options(str(name)):
                cure = f"choose its file under defaults: `- override /{name}: {value}`"
            yield ConfigFileError(path, line, "keys with values", cure, key=key, value=value)
            continue
        if isinstance(value, str) and ("${" in value or value == "???"):
            continue
        try:
            typed = OmegaConf.merge(typed, {name: value})
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
    content: Content,
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
