"""Move an alias to a version that a person names, or that the policy chooses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from steps.config.model import ModelConfig
from steps.config.promotion import PromotionConfig
from steps.core.errors import ConfigError, StepError
from steps.core.redaction import redact
from steps.registry import actors, alias_plan, eligibility, evidence, evidence_selection, trust
from steps.registry import register as registration
from steps.registry import target as targets
from steps.registry.alias_store import AliasStore, LostRaceError
from steps.registry.client import RegistryClient
from steps.registry.move import Reason, move
from steps.registry.result import Promotion, RefusedError
from steps.registry.target import Target


def promote(
    registry: RegistryClient,
    target: Target,
    policy: PromotionConfig,
    model: ModelConfig,
    *,
    alias: str,
    force: bool = False,
    reason: str | None = None,
    report_uri: str | None = None,
    dry_run: bool = False,
    overrides: Sequence[str] = (),
    beaten: Mapping[str, int | None] | None = None,
    asked: str | None = None,
) -> Promotion:
    """Move an alias to a version.

    A named version is checked: evidence about these bytes, not too old, a verdict that promotes,
    and the canary. Without a version, the strongest evaluation of the model that counts is
    registered (of equally strong ones the newest), and the policy chooses the winner. Promoting
    what is already there changes nothing.

    Args:
        registry: the tracking server.
        target: the registered model, and the version if one is named.
        policy: what must hold; its own alias does not count.
        model: says where the weights come from, where the report does not.
        alias: to move.
        force: overrule the policy, never the canary or the digest.
        reason: why, for the history; ``force`` needs one.
        report_uri: the report to go by, instead of the strongest.
        dry_run: say what would change and change nothing.
        overrides: of this run, for the commands that messages and cards show.
        beaten: alias to the version that the caller compared the target with; if it points
            elsewhere by now, the comparison is void.
        asked: alias by which somebody asked for the move; the default is the target's. If it does
            not point at the version any more once the canary is done, nothing moves.

    Raises:
        ConfigError: ``force`` without a reason or a version.
        RefusedError: the policy, the evidence, the bytes, missing approvals or the canary do not
            allow it; no alias was moved.
        WithdrawnError: whoever asked for it has withdrawn or moved that alias meanwhile; no alias
            was moved.
        LostRaceError: another promoter moved the alias in between; no alias was moved here.
    """
    targets.check_force(force, reason)
    policy = replace(policy, alias=alias)
    if target.version is None and target.alias is None:
        targets.check_registered(registry, target)
        if force:
            raise ConfigError(
                "force",
                True,
                "a version to promote against the policy",
                f"pass target=models:/{target.name}/<version>",
            )
        return registration.register(
            registry,
            _report_about(registry, target.name, policy, report_uri),
            policy,
            model,
            dry_run=dry_run,
            kind="promote",
            reason=reason,
            overrides=overrides,
        )
    # says clearly when there is none, before anything is written
    targets.version_of(registry, target)
    store = AliasStore(registry, target.name)
    # before the version is looked at: what moves from here on is a race
    history = store.peek() if dry_run else store.open()
    for compared, number in (beaten or {}).items():
        if history.aliases.get(compared) != number:
            raise LostRaceError(
                f"models:/{target.name}@{compared} moved since the versions were compared; nothing"
                " was changed"
            )
    version = targets.version_of(registry, target)
    if version is None:
        raise StepError(f"{target.uri}: it was there a moment ago, and is not now; run this again")
    assessment = eligibility.assess(registry, version, policy, report_uri=report_uri)
    if assessment.objections and not force:
        raise RefusedError(
            f"{version.uri} is not promoted to @{alias}: {'; '.join(assessment.objections)}. To"
            " overrule the policy: force=true reason='…'"
        )
    who = actors.who(registry)
    return move(
        store,
        history,
        assessment,
        alias_plan.succeed(history.aliases, alias, version.number),
        policy,
        who,
        Reason(
            "promote",
            redact(reason or f"named by {who.shown}, passed its gates"),
            {"objections": list(assessment.objections)} if assessment.objections else {},
        ),
        dry_run=dry_run,
        overrides=overrides,
        asked=asked or target.alias,
    )


def _report_about(
    registry: RegistryClient, name: str, policy: PromotionConfig, report_uri: str | None
) -> str:
    """URI of the report by which the policy chooses."""
    if report_uri is None:
        in_service = registration.in_service(registry, name, registry.versions(name))
        strongest = evidence_selection.strongest(
            registry,
            name,
            policy,
            trust.trusted(registry, policy, in_service),
            lambda report: report.registered_name == name,
        )
        if strongest is None:
            raise RefusedError(
                f"models:/{name}: there is no finished evaluation to choose by; make one: `mlflow"
                " run . -e evaluate --env-manager local`"
            )
        report_uri = strongest.uri
    followed = trust.places(registry, policy)
    about = evidence.read(report_uri, registry, followed).registered_name
    if about != name:
        raise ConfigError(
            "report_uri",
            redact(report_uri),
            f"a report about {name}, not about {about}",
            f"pass target=models:/{about}",
        )
    return report_uri
