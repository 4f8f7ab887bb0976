"""Which registered model, and which of its versions, somebody means."""

from __future__ import annotations

from dataclasses import dataclass

from steps.config import names
from steps.config.promotion import ALIAS, KEPT_ALIASES, VERSION_LIKE
from steps.config.root import Config
from steps.core import model_uri
from steps.core.errors import ConfigError, StepError
from steps.registry import entities
from steps.registry.client import RegistryClient
from steps.registry.model_version import Version

FORMS = "models:/<name>/<version>, models:/<name>@<alias> or models:/<name>"


@dataclass(frozen=True)
class Target:
    """A registered model, and a version by number, by alias or not at all."""

    name: str
    version: int | None = None
    alias: str | None = None

    @property
    def uri(self) -> str:
        suffix = f"/{self.version}" if self.version else f"@{self.alias}" if self.alias else ""
        return f"models:/{self.name}{suffix}"


def parse(text: str | None, config: Config) -> Target:
    """What ``target`` names; without one, the registered model of the config.

    Raises:
        ConfigError: the text is not such a URI, or its name is not one that every command accepts.
    """
    if text is None:
        return Target(config.model.registered_name)
    uri = model_uri.parse(text)
    name = (uri.name or uri.model_id or "") if uri else ":"  # a model may be named m-…
    if uri and not {*"@:"} & {*name} and (uri.version or "0").isdigit():
        number = int(uri.version) if uri.version else None
        return Target(names.check("target", name), number, uri.alias)
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


def to_roll_back(config: Config) -> tuple[str, str]:
    """The registered model and the alias that a rollback moves.

    Raises:
        ConfigError: a version where the alias belongs, two aliases, or an alias that follows
            others.
    """
    target = parse(config.target, config)
    if target.version is not None:
        alias = config.alias or config.promotion.alias
        raise ConfigError(
            "target",
            config.target,
            "models:/<name>@<alias>, as to=<version> says where to",
            f"pass target=models:/{target.name}@{alias} to={target.version}",
        )
    if target.alias is None:
        return target.name, alias_of(config)
    if config.alias is not None and config.alias != target.alias:
        raise ConfigError(
            "alias",
            config.alias,
            f"no other alias than the target's, {target.alias}",
            "name the alias once",
        )
    return target.name, _movable("target", target.alias)


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


def check_force(force: bool, reason: str | None) -> None:
    """Refuse to overrule anything without a reason.

    Raises:
        ConfigError: ``force`` without ``reason``.
    """
    if force and not (reason or "").strip():
        raise ConfigError(
            "reason",
            reason,
            "why the policy is overruled, as force=true",
            "pass reason='…'; the history keeps it",
        )


def check_registered(registry: RegistryClient, target: Target) -> None:
    """Refuse a logged model where a registered one is meant: ``models:/m-…`` may be either.

    Raises:
        StepError: naming the versions that were made of it.
    """
    if not target.name.startswith("m-") or registry.aliases(target.name) is not None:
        return
    versions = registry.versions_of_logged(target.name)
    if versions or registry.logged_model(target.name):
        cure = " or ".join(f"target={version.uri}" for version in versions)
        cure = f"pass {cure}" if cure else "register it first, with -e register"
        raise StepError(
            f"target={target.uri}: expected a version of a registered model, and this is a logged"
            f" model; {cure}"
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
        check_registered(registry, target)
        raise StepError(
            f"target=models:/{target.name}: no such registered model; make one with `mlflow run ."
            " --env-manager local -P model=…`"
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
        known = ", ".join(str(other.number) for other in registry.versions(target.name)) or "none"
        raise StepError(
            f"target=models:/{target.name}/{number}: no such version; there are: {known}"
        )
    return entities.usable(registry, version) if usable else version
