"""Compose the config and say what is wrong with it in one line, before anything heavy is
imported.
"""

import difflib
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from hydra import compose, initialize_config_dir
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import (
    ConfigCompositionException,
    HydraException,
    MissingConfigException,
    OverrideParseException,
)
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

from steps.config.root import CONF, Config, register
from steps.core.errors import ConfigError


def prepare() -> None:
    """Register the schemas and resolvers; call once before Hydra composes."""
    register()
    OmegaConf.register_new_resolver("pid", os.getpid, replace=True)


def compose_config(overrides: Sequence[str]) -> Config:
    """The typed config that ``overrides`` compose to.

    Raises:
        ConfigError: with field, value and what is expected.
    """
    with _explained(overrides):
        return typed(composed(overrides))


def composed(overrides: Sequence[str]) -> DictConfig:
    """The config that ``overrides`` compose to, its values not yet checked by the schemas.

    Raises:
        ConfigError: a key or a group choice is wrong.
    """
    prepare()
    GlobalHydra.instance().clear()
    with _explained(overrides), initialize_config_dir(str(CONF), version_base="1.3"):
        composed_ = compose("config", overrides=list(overrides))
    for override in overrides:
        _require_known(override)
    return composed_


def _require_known(override: str) -> None:
    """Refuse what ``+`` would add to the config although nothing reads it.

    Raises:
        ConfigError: naming the key that may be meant.
    """
    key, _, value = override.lstrip("+").partition("=")
    if not override.startswith("+") or key.startswith("hydra") or _options(key.partition("@")[0]):
        return
    known, above = _keys(), key
    if key in known:
        return
    while above := above.rpartition(".")[0]:
        if above in known and _takes_any_key(above):
            return
    raise _unknown_key(key, value)


def compose_jobs(overrides: Sequence[str]) -> list[Config]:
    """The config of each job that a multirun with ``overrides`` starts.

    Raises:
        ConfigError: as :func:`compose_config`, for the first job at fault.
    """
    with _explained(overrides), initialize_config_dir(str(CONF), version_base="1.3"):
        parser = OverridesParser.create(config_loader=GlobalHydra.instance().config_loader())
        batches = BasicSweeper.split_arguments(
            parser.parse_overrides(list(overrides)), max_batch_size=None
        )
    return [compose_config(job) for batch in batches for job in batch]


@contextmanager
def _explained(overrides: Sequence[str]) -> Iterator[None]:
    """Hydra's and OmegaConf's errors as one ConfigError; for a null they have a bare
    AssertionError, AttributeError or ValueError.
    """
    GlobalHydra.instance().clear()
    try:
        yield
    except ConfigError:
        raise
    except (HydraException, OmegaConfBaseException) as error:
        raise explain(error, overrides) from error
    except (AssertionError, AttributeError, ValueError) as error:
        if (plain := _null(overrides)) is None:
            raise
        raise plain from error


def _null(overrides: Sequence[str]) -> ConfigError | None:
    """The override at fault where Hydra trips over a null: of a group, or of the prebuilt folder
    that a model does not name.
    """
    for override in overrides:
        key, _, value = override.lstrip("+~").partition("=")
        if value == "null" and _options(key):
            return ConfigError(key, None, f"one of {', '.join(_options(key))}")
        if key.startswith("model.onnx"):
            return ConfigError(
                key,
                value,
                "a model that names a prebuilt folder",
                "write model.onnx into a file of conf/model/",
            )
    return None


def typed(cfg: DictConfig) -> Config:
    """The dataclasses behind a composed config, validated.

    Raises:
        ConfigError: a mandatory value is missing or a value is out of range.
    """
    try:
        config = OmegaConf.to_object(cfg)
    except MissingMandatoryValue as error:
        key = str(error.full_key)
        raise ConfigError(key, "???", "a value, as it is mandatory", f"pass {key}=…") from error
    assert isinstance(config, Config)
    return config


def explain(error: Exception, overrides: Sequence[str]) -> ConfigError:
    """One clear line for what Hydra and OmegaConf say in several.

    Args:
        error: what composing raised.
        overrides: the overrides that were composed, to name the one at fault.
    """
    if isinstance(error, MissingConfigException):
        name = str(error.missing_cfg_file or "").removesuffix(".yaml")
        group, _, option = name.rpartition("/")
        known = _options(group) or sorted(error.options or [])
        return ConfigError(
            group or "config",
            option or name,
            f"one of {', '.join(known)}" if known else "an installed plugin of Hydra",
        )
    cause: BaseException = error
    while cause.__cause__ is not None and isinstance(cause, ConfigCompositionException):
        cause = cause.__cause__
    first = str(error).splitlines()[0]
    if isinstance(error, OverrideParseException):
        return ConfigError(
            "overrides",
            error.override,
            "key=value in Hydra's override grammar",
            "quote values with spaces or commas",
        )
    key = str(getattr(cause, "full_key", "") or "")
    for pattern in (r"Could not override '([^']+)'", r"In '[^']*': (?:Key|Could not).* '([^']+)'"):
        if match := re.search(pattern, first):
            key = match[1]
            break
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
        return _unknown_key(match[1], None)
    value = _given(key, overrides)
    if unknown := re.search(r"Key '([^']+)' (?:is )?not in", str(cause)) or re.search(
        r"Key '([^']+)' not in", str(error)
    ):
        return _unknown_key(key or unknown[1], value)
    if match := re.search(r"Could not find '([^']+)/([^'/]+)'", str(error)):
        return ConfigError(match[1], match[2], f"one of {', '.join(_options(match[1]))}")
    if match := re.search(r"Could not (?:override|find|load) '?([\w./]+)'?", first):
        return _unknown_key(match[1], value)
    return ConfigError(key or "overrides", value, _expectation(str(cause)))


def _given(key: str, overrides: Sequence[str]) -> object:
    for override in reversed(overrides):
        name, _, value = override.lstrip("+~").partition("=")
        if name == key:
            return value
    return None


def _unknown_key(key: str, value: object) -> ConfigError:
    known = _keys()
    close = difflib.get_close_matches(key, known, n=3, cutoff=0.7)
    prefix = key.rpartition(".")[0]
    siblings = [name for name in known if name.rpartition(".")[0] == prefix] or [
        name for name in known if "." not in name
    ]
    hint = f"did you mean {' or '.join(close)}?" if close else f"known keys: {', '.join(siblings)}"
    if key in known and _takes_any_key(key):
        return ConfigError(
            key, value, "keys of your own behind a +, without spaces", f"write +{key}={{key:value}}"
        )
    if prefix in known and _takes_any_key(prefix):
        cure = f"{prefix} takes keys of your own: write +{key}=…"
        return ConfigError(key, value, "a key of the config", cure)
    return ConfigError(key, value, f"a key of the config; {hint}", "`--cfg job` prints the config")


def _takes_any_key(name: str) -> bool:
    """Whether a node of the config is a mapping, and not one of the dataclasses."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        node = OmegaConf.select(compose("config"), name)
    return isinstance(node, DictConfig) and OmegaConf.get_type(node) is dict


def _expectation(message: str) -> str:
    first = message.splitlines()[0]
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


def _keys() -> list[str]:
    def walk(node: Any, prefix: str) -> list[str]:
        names: list[str] = []
        for name in node:
            names.append(prefix + str(name))
            child = node._get_node(name)
            if isinstance(child, DictConfig) and not child._is_missing() and not child._is_none():
                names += walk(child, f"{prefix}{name}.")
        return names

    GlobalHydra.instance().clear()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return walk(compose("config"), "")


def _options(group: str) -> list[str]:
    return sorted(path.stem for path in (CONF / group).glob("*.yaml"))
