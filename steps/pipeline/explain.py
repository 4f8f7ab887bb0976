"""What Hydra and OmegaConf say in several lines, as one line with field, value and cure."""

import re
from collections.abc import Sequence
from pathlib import Path

from hydra.errors import (
    ConfigCompositionException,
    MissingConfigException,
    OverrideParseException,
)

from steps.config import schema
from steps.config.root import CONF
from steps.core import did_you_mean
from steps.core.errors import ConfigError

A_KEY = "a key of the config"
PRINTS = "`--cfg job` prints the config"


def explain(error: Exception, overrides: Sequence[str]) -> ConfigError:
    """One clear line.

    Args:
        error: what composing raised.
        overrides: the overrides that were composed, to name the one at fault.
    """
    if isinstance(error, MissingConfigException):
        name = str(error.missing_cfg_file or "").removesuffix(".yaml")
        group, _, option = name.rpartition("/")
        return no_such_choice(group or "config", option or name, error.options or [])
    cause: BaseException = error
    while cause.__cause__ is not None and isinstance(cause, ConfigCompositionException):
        cause = cause.__cause__
    first = str(error).splitlines()[0]
    if isinstance(error, OverrideParseException):
        return ConfigError(
            "overrides",
            error.override,
            "key=value in Hydra's override grammar",
            _quoted(error.override),
        )
    key = str(getattr(cause, "full_key", "") or "")
    for pattern in (r"Could not override '([^']+)'", r"In '[^']*': (?:Key|Could not).* '([^']+)'"):
        if match := re.search(pattern, first):
            key = match[1]
            break
    if key and "." not in key:  # of a key below a mapping, whose path Hydra leaves out
        given = [word.lstrip("+~").partition("=")[0] for word in overrides]
        key = next((one for one in given if one.endswith(f".{key}")), key)
    if match := re.search(r"Sweep parameters '([^']+)'", str(error)):
        return ConfigError(
            match[1].split("=")[0],
            match[1].partition("=")[2],
            "one value",
            "add -m to run once for each",
        )
    if match := re.search(r"Ambiguous value for argument '([^'=]+)=([^']*)'", first):
        return ConfigError(match[1], match[2], "one value", "add -m to run once for each")
    if match := re.search(r"Could not delete from config\. '([^']+)'", first):
        return unknown_key(match[1], None)
    value = _given(key, overrides)
    if unknown := re.search(r"Key '([^']+)' (?:is )?not in", str(cause)) or re.search(
        r"Key '([^']+)' not in", str(error)
    ):
        return unknown_key(key or unknown[1], value)
    if match := re.search(r"Could not find '([^']+)/([^'/]+)'", str(error)):
        return no_such_choice(match[1], match[2])
    if match := re.search(r"Could not (?:override|find|load) '?([\w./]+)'?", first):
        return unknown_key(match[1], value)
    if value is None and (match := re.search(r"Value '([^']*)'", str(cause))):
        value = match[1]  # of a key within what was given, such as {champion: x}
    return ConfigError(key or "overrides", value, expectation(str(cause)))


def _quoted(override: str) -> str:
    """The override with its value in quotes, which take any character."""
    key, _, value = override.partition("=")
    if not value or "'" in value or not key.replace(".", "").isidentifier():
        return "quote values with spaces, commas, brackets, a ~ or letters beyond a to z"
    return f"quote the value: {key}='{value}', in a shell within double quotes"


def of_prebuilt(overrides: Sequence[str]) -> ConfigError | None:
    """The override of a prebuilt folder that the model does not name, over whose null Hydra
    trips.
    """
    for override in overrides:
        key, _, value = override.lstrip("+~").partition("=")
        if key.startswith("model.onnx"):
            expected = "a model that names a prebuilt folder"
            return ConfigError(key, value, expected, "write model.onnx into a file of conf/model/")
    return None


def no_such_choice(group: str, name: str, found: Sequence[str] = ()) -> ConfigError:
    """The error of a file of a group that is not there.

    Args:
        group: such as ``model``.
        name: what was asked for.
        found: what Hydra knows, for groups of its own.
    """
    known = options(group) or sorted(found)
    cure = did_you_mean.hint(name, known)
    if (CONF / group / f"{name}.yml").is_file():
        cure = f"rename conf/{group}/{name}.yml to {name}.yaml, the ending that Hydra reads"
    elif Path(name).suffix in (".yaml", ".yml"):
        stem = Path(name).stem
        cure = f"name a file of conf/{group}/ without its ending: {group}={stem}"
        if stem not in known:
            cure = f"copy the file to conf/{group}/, and pass {group}={stem}"
    elif group == "model" and cure is None:
        cure = "a repository is owner/name, and a folder begins with / or ./"
    expected = f"one of {', '.join(known)}" if known else "an installed plugin of Hydra"
    return ConfigError(group, name, expected, cure)


def unknown_key(key: str, value: object) -> ConfigError:
    """The error of a key that is none, naming those that may be meant."""
    known = list(schema.keys())
    prefix = key.rpartition(".")[0]
    siblings = [name for name in known if name.rpartition(".")[0] == prefix] or [
        name for name in known if "." not in name
    ]
    hint = meant(key) or f"known keys: {', '.join(siblings)}"
    if schema.takes_any_key(key):
        return ConfigError(
            key, value, "keys of your own behind a +, without spaces", f"write +{key}={{key:value}}"
        )
    if schema.takes_any_key(prefix):
        cure = f"{prefix} takes keys of your own: write +{key}=…"
        return ConfigError(key, value, A_KEY, cure)
    return ConfigError(key, value, f"{A_KEY}; {hint}", PRINTS)


def meant(key: str) -> str | None:
    """``did you mean …?`` for a dotted key: one beside it, one of nearly the same path, or one of
    the same name elsewhere.
    """
    known = list(schema.keys())
    above, _, name = key.rpartition(".")
    prefix = f"{above}." if above else ""
    beside = {one.rpartition(".")[2] for one in known if one.rpartition(".")[0] == above}
    found = [prefix + one for one in did_you_mean.close(name, beside)]
    found = found or did_you_mean.close(key, known)
    found = found or [one for one in known if one.endswith(f".{name}")][:3]
    return f"did you mean {' or '.join(found)}?" if found else None


def expectation(message: str) -> str:
    """What a typed field would take, from OmegaConf's words."""
    lines = message.splitlines()
    first = lines[1] if lines[0].endswith("composing config:") and lines[1:] else lines[0]
    if "is not a ListConfig" in first:
        return "a list, such as [a, b]"
    if "is not a subclass of Dict" in first:
        return "keys with values, such as {a: b}"
    if match := re.search(r"Value .* is incompatible with type hint '([\w.]+)", first):
        kinds = {"str": "text in quotes", "int": "an integer", "float": "a number"}
        return kinds.get(match[1], "a list, such as [a, b]")
    if "is not Optional" in first:
        return "a value; null is not allowed"
    if "nterpolation" in first:
        return f"an interpolation that can be resolved ({first.partition(': ')[2] or first})"
    if match := re.search(r"Invalid value '[^']*', expected one of \[(.*)\]", first):
        return f"one of {match[1]}"
    if match := re.search(r"could not be converted to (\w+)", first):
        return {
            "Integer": "an integer",
            "Float": "a number",
            "Boolean": "true or false",
            "String": "text",
        }.get(match[1], match[1])
    if "is not a valid bool" in first:
        return "true or false"
    return f"another value ({first})"


def options(group: str) -> list[str]:
    """Names of the files of a group of ``conf/``."""
    return sorted(path.stem for path in (CONF / group).glob("*.yaml") if path.is_file())


def _given(key: str, overrides: Sequence[str]) -> object:
    for override in reversed(overrides):
        name, _, value = override.lstrip("+~").partition("=")
        if name == key:
            return value
    return None
