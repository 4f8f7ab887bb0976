"""Which registered model, and which of its versions, somebody means."""

from __future__ import annotations

import re
from dataclasses import dataclass

from steps.config import names
from steps.config.promotion import ALIAS, KEPT_ALIASES, VERSION_LIKE
from steps.config.root import Config
from steps.core.errors import ConfigError, StepError
from steps.registry import entities
from steps.registry.client import RegistryClient, Version

TARGET = re.compile(r"models:/(?P<name>[^/@:]+)(?:/(?P<version>\d+)|@(?P<alias>[^/@]+))?")
FORMS = "models:/<name>/<version>, models:/<name>@<alias> or models:/<name>"


@dataclass(frozen=True)
class Target:
    """A registered model, and a version by number, by alias or not at all."""

    name: str
    version: int | None = None
    alias: str | None = None


def parse(text: str | None, config: Config) -> Target:
    """What ``target`` names; without one, the registered model of the config.

    Raises:
        ConfigError: the text is not such a URI, or its name is not one that every command accepts.
    """
    if text is None:
        return Target(config.model.registered_name)
    if found := TARGET.fullmatch(text):
        return Target(
            names.check("target", found["name"]),
            int(found["version"]) if found["version"] else None,
            found["alias"],
        )
    raise ConfigError(
        "target",
        text,
        FORMS,
        f"in a name there may be {names.EXPECTED}" if text.startswith("models:/") else None,
    )


def alias_of(config: Config) -> str:
    """The alias to move: ``alias``, else the policy's.

    Raises:
        ConfigError: an alias that register keeps, or that MLflow would not take.
    """
    return (
        _movable("alias", config.alias)
        if config.alias is not None
        else _movable("promotion.alias", config.promotion.alias)
    )


def to_roll_back(config: Config) -> Target:
    """The registered model and the alias that a rollback moves.

    Raises:
        ConfigError: a version where the alias belongs, two aliases, or an alias that nobody may
            move by hand.
    """
    target = parse(config.target, config)
    if target.version is not None:
        alias = config.alias or config.promotion.alias
        cure = f"pass target=models:/{target.name}@{alias} to={target.version}"
        raise ConfigError(
            "target", config.target, "models:/<name>@<alias>, as to=<version> says where to", cure
        )
    if target.alias is not None and config.alias is not None and config.alias != target.alias:
        raise ConfigError(
            "alias",
            config.alias,
            f"no other alias than the target's, {target.alias}",
            "name the alias once",
        )
    return Target(
        target.name, None, _movable("target", target.alias) if target.alias else alias_of(config)
    )


def _movable(field: str, alias: str) -> str:
    kept = alias in KEPT_ALIASES or alias.startswith(("previous-", "challenger-"))
    if kept or not ALIAS.fullmatch(alias) or VERSION_LIKE.fullmatch(alias):
        words = ", ".join([*sorted(KEPT_ALIASES), "previous-…", "challenger-…"])
        raise ConfigError(
            field,
            alias,
            f"an alias in lower-case letters, digits and dashes, not v<number> and none of {words}",
        )
    return alias


def check_force(config: Config) -> None:
    """Refuse to overrule anything without a reason.

    Raises:
        ConfigError: ``force`` without ``reason``.
    """
    if config.force and not (config.reason or "").strip():
        raise ConfigError(
            "reason",
            config.reason,
            "why the policy is overruled, as force=true",
            "pass reason='…'; the history keeps it",
        )


def version_of(registry: RegistryClient, target: Target, *, usable: bool = True) -> Version | None:
    """The version that a target names; None where it names none.

    Args:
        registry: the tracking server.
        target: what somebody means.
        usable: whether it must be one that can be judged; not where it is only to be left, as by a
            rollback.

    Raises:
        StepError: there is no such model, version or alias.
        RefusedError: the version is not one that can ever be judged.
    """
    aliases = registry.aliases(target.name)
    if aliases is None:
        raise StepError(
            f"target=models:/{target.name}: no such registered model; make one with `mlflow run ."
            " -P model=…`"
        )
    number = target.version
    if target.alias is not None:
        number = aliases.get(target.alias)
        if number is None:
            known = ", ".join(f"@{alias}" for alias in sorted(aliases)) or "none"
            raise StepError(
                f"target=models:/{target.name}@{target.alias}: no such alias; there are: {known}"
            )
    if number is None:
        return None
    version = registry.version(target.name, number)
    if version is None:
        known = ", ".join(str(each.number) for each in registry.versions(target.name)) or "none"
        raise StepError(
            f"target=models:/{target.name}/{number}: no such version; there are: {known}"
        )
    return entities.usable(registry, version) if usable else version
