"""One move of an alias to a version: what must hold, the canary, the entry in the history."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from steps.config.promotion import PromotionConfig
from steps.core import tags
from steps.registry import (
    alias_plan,
    canary,
    permission,
    proposals,
    protection,
    result,
    trust,
    versions,
)
from steps.registry.actors import Actor
from steps.registry.alias_store import AliasStore
from steps.registry.client import RegistryClient
from steps.registry.eligibility import Assessment
from steps.registry.journal import Journal
from steps.registry.model_version import Version
from steps.registry.record import Record, new_id
from steps.registry.result import Promotion, RefusedError, WithdrawnError


@dataclass(frozen=True)
class Reason:
    """Why an alias moves, as the history's entry holds it."""

    kind: str  # promote or rollback
    words: str
    details: Mapping[str, Any] = field(default_factory=dict)


def move(
    store: AliasStore,
    history: Journal,
    assessment: Assessment,
    wanted: Mapping[str, int | None],
    policy: PromotionConfig,
    who: Actor,
    why: Reason,
    *,
    dry_run: bool = False,
    overrides: Sequence[str] = (),
    asked: str | None = None,
) -> Promotion:
    """Move the policy's alias, with those that follow it, to a version that was assessed.

    Args:
        store: of the registered model.
        history: what the decision was made on.
        assessment: of the version.
        wanted: alias to version.
        policy: approvals, protected aliases and the limits of the canary count.
        who: moves it.
        why: for the history.
        dry_run: say what would change and change nothing; no canary is run.
        overrides: of this run, for the commands that messages and cards show.
        asked: alias that must still point at the version once the canary is done.

    Raises:
        RefusedError, WithdrawnError, LostRaceError: as :func:`steps.registry.promote.promote`.
    """
    registry, version, report = store.registry, assessment.version, assessment.evidence
    alias, forced, candidate = policy.alias, bool(assessment.objections), assessment.candidate
    if mistaken := history.mistaken(version.number, version.model_id, assessment.digest):
        raise RefusedError(
            f"{version.uri} is not moved to @{alias}: {mistaken} (of {store.history!r}). No reason"
            " overrules this."
        )
    protection.check_names(registry, policy, history.aliases)
    moves = alias_plan.moves(history.aliases, wanted)
    protection.check_protected(moves, who, policy)
    # a rollback must not wait
    subject = proposals.subject_of(assessment, alias) if moves and why.kind == "promote" else None

    def approvals() -> dict[str, Any]:
        if subject is None:
            return {}
        return permission.require_approval(
            store, history, version, subject, who, policy, overrides=overrides, dry_run=dry_run
        )

    approvals()
    verdict, entry = "", None
    isolation_missing: tuple[str, ...] = ()
    if moves and not dry_run:
        trust.check_address(registry, version.uri, policy)
        outcome = canary.run(version.uri, assessment.digest, policy.canary)
        if not outcome.passed:
            raise RefusedError(
                f"{version.uri} is not moved to @{alias}: its canary failed ({outcome.fault}). No"
                " reason overrules this."
            )
        # once more, as somebody may have rejected it while the canary ran
        details = {**why.details, **approvals()}
        verdict, isolation_missing = "passed", outcome.missing
        _check_unchanged(registry, version, alias, asked)
        # what a reason overruled does not replace what is recorded
        forced_over = forced and tags.EVALUATION in version.tags
        if report and candidate and candidate.model_id == version.model_id and not forced_over:
            versions.annotate(registry, version, candidate, report, versions.command(overrides))
        entry = store.commit(
            history,
            Record(
                id=new_id(),
                kind=why.kind,
                moves=moves,
                actor=who.name,
                authenticated=who.authenticated,
                reason=why.words,
                forced=forced,
                profile=policy.profile,
                evidence=report.uri if report else version.tags.get(tags.EVALUATION),
                evidence_digest=report.digest if report else version.tags.get(tags.EVIDENCE_DIGEST),
                run_id=result.active_run_id(),
                details={**details, **canary.recorded(isolation_missing)},
                identities={
                    str(version.number): {"model_id": version.model_id, "digest": assessment.digest}
                },
            ),
        )
    final = {**history.aliases, **wanted}
    promotion = Promotion(
        kind=why.kind,
        name=version.name,
        report_uri=report.uri if report else None,
        evidence_digest=report.digest if report else None,
        profile=policy.profile,
        alias=alias,
        rows=(
            result.row(version.name, candidate, version.number, final, exists=True, canary=verdict)
            if candidate
            else result.unevaluated_row(version, final, verdict),
        ),
        moves=moves,
        reason=why.words if moves else f"@{alias} is at version {version.number} already",
        entry=entry.number if entry else None,
        entry_digest=entry.digest if entry else None,
        forced=forced,
        dry_run=dry_run,
        isolation_missing=isolation_missing,
    )
    result.keep(promotion)
    return promotion


def _check_unchanged(
    registry: RegistryClient, version: Version, alias: str, asked: str | None
) -> None:
    """Right before the intent: whether somebody still asks for this version, and it still is the
    one that was assessed.

    Raises:
        WithdrawnError: the alias by which it was asked for points elsewhere, or nowhere.
        RefusedError: the version was deleted, or is of another logged model or other bytes by now.
    """
    if asked is not None:
        now = (registry.aliases(version.name) or {}).get(asked)
        if now != version.number:
            became = "was withdrawn" if now is None else f"points at version {now} now"
            raise WithdrawnError(
                f"{version.uri} is not moved to @{alias}: @{asked} {became}, while it was looked"
                " at; nothing was changed"
            )
    there = registry.version(version.name, version.number)
    if there is None or _identity(there) != _identity(version):
        became = "was deleted" if there is None else "is of another logged model or other bytes"
        raise RefusedError(
            f"{version.uri} is not moved to @{alias}: it {became}, while it was looked at; nothing"
            " was changed"
        )


def _identity(version: Version) -> tuple[str | None, str, str | None]:
    return version.model_id, version.source, version.tags.get(tags.DIGEST)
