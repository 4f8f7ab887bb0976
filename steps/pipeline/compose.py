"""Compose the config and say what is wrong with it in one line, before anything heavy is
imported.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import yaml
from hydra import compose, initialize_config_dir
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

from steps.config import model_names, schema
from steps.config.root import CONF, Config, register
from steps.core.errors import ConfigError
from steps.pipeline import config_files
from steps.pipeline.explain import explain, no_such_choice, of_prebuilt, options, unknown_key

# what Hydra and OmegaConf raise besides their own: for a null, and for files that are not YAML
BARE = (AssertionError, AttributeError, KeyError, OSError, RecursionError, TypeError, ValueError)


def prepare() -> None:
    """Register the schemas and resolvers; call once before Hydra composes."""
    register()
    OmegaConf.register_new_resolver("pid", os.getpid, replace=True)
    OmegaConf.register_new_resolver("name_of_repo", model_names.of_repository, replace=True)
    OmegaConf.register_new_resolver("name_of_folder", model_names.of_folder, replace=True)


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
    config_files.require_default_name()
    for override in overrides:
        _require_settable(override)
    with _explained(overrides), initialize_config_dir(str(CONF), version_base="1.3"):
        composed_ = compose("config", overrides=list(overrides))
    for override in overrides:
        _require_known(override)
    config_files.require_content(overrides)
    return composed_


def _require_settable(override: str) -> None:
    """Refuse a choice of a group that is not there, and a ``+`` or ``~`` of what the config has.

    Raises:
        ConfigError: naming what to write instead.
    """
    sign = override[: len(override) - len(override.lstrip("+~"))]
    key, equals, value = override[len(sign) :].partition("=")
    choices = options(key)
    if not key or key.startswith("hydra"):
        return
    known = schema.kind_of(key) is not None and not schema.takes_any_key(key)
    if ("+" in sign and choices) or (sign == "+" and known):
        expected = "an override without +, as the config has the key"
        raise ConfigError(key, value, expected, f"write {key}={value}")
    if sign == "~" and (choices or schema.kind_of(key)):
        expected = "a key that the config lacks, as its own can be set but not deleted"
        raise ConfigError("overrides", override, expected, f"write {key}=…")
    several = any(sign in value for sign in "[(,")  # Hydra says what it makes of them
    if choices and equals and not several and value.strip("'\"") not in choices:
        raise no_such_choice(key, value)


def _require_known(override: str) -> None:
    """Refuse what ``+`` would add to the config although nothing reads it.

    Raises:
        ConfigError: naming the key that may be meant.
    """
    key, _, value = override.lstrip("+").partition("=")
    if not override.startswith("+") or key.startswith("hydra") or options(key.partition("@")[0]):
        return
    above = key
    if schema.kind_of(key) is not None:
        return
    while above := above.rpartition(".")[0]:
        if schema.takes_any_key(above):
            return
    raise unknown_key(key, value)


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
    """Hydra's, OmegaConf's and YAML's errors as one ConfigError, which names file and line where a
    file of ``conf/`` is at fault.
    """
    GlobalHydra.instance().clear()
    try:
        yield
    except ConfigError as error:
        if (located := config_files.located(error, overrides)) is error:
            raise
        raise located from error
    except (HydraException, OmegaConfBaseException) as error:
        explained = config_files.located(explain(error, overrides), overrides)
        raise config_files.first_fault(overrides) or explained from error
    except (yaml.YAMLError, *BARE) as error:
        if (plain := config_files.first_fault(overrides) or of_prebuilt(overrides)) is None:
            raise
        raise plain from error


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
