"""Whether other people let a version move: missing approvals, rejections, protected aliases."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from steps.config.promotion import PromotionConfig
from steps.core import tags
from steps.core.errors import StepError
from steps.core.redaction import redact
from steps.registry import approvals, evidence, proposals, protection, statements, trust
from steps.registry.actors import Actor
from steps.registry.alias_store import AliasStore
from steps.registry.aliases import challenger_of, previous_of
from steps.registry.approval_entries import proposed_by, reason
from steps.registry.approvals import UnpreparedError
from steps.registry.eligibility import Assessment
from steps.registry.journal import Journal
from steps.registry.model_version import Version
from steps.registry.result import RefusedError
from steps.registry.statements import Subject


@dataclass(frozen=True)
class Withheld:
    """What a registration may move, and what it leaves where it is."""

    aliases: Mapping[str, int | None]  # alias to version, of those that may move
    words: str  # why the others may not
    details: Mapping[str, Any]  # what the journal's entry says about approvals
    waiting: int | None  # version that waits for approvals


class UndecidedError(RefusedError):
    """What other people say of the version is against the move, and may change."""


class WaitingError(UndecidedError):
    """Nothing is against the move but that approvals are missing; no alias was moved."""


class RejectedError(UndecidedError):
    """An approver rejected the version on this evidence; no alias was moved."""


def require_approval(
    store: AliasStore,
    history: Journal,
    version: Version,
    subject: Subject,
    who: Actor,
    policy: PromotionConfig,
    *,
    overrides: Sequence[str] = (),
    dry_run: bool = False,
) -> dict[str, Any]:
    """Refuse a move until enough other people have approved it, and as long as it is rejected.

    The first refusal is the proposal: it is written into the journal, with its author, and onto the
    version as a tag. Statements of approvers are copied into the journal.

    Args:
        store: of the registered model.
        history: what the decision is made on.
        version: that the alias is to move to.
        subject: the same with its bytes, evidence and alias.
        who: asks for the move.
        policy: how many approvals, and whose.
        overrides: of this run, for the command that an approver is shown.
        dry_run: write nothing.

    Returns:
        What the journal's entry of the move says about its approvals; empty where none were asked
        for.

    Raises:
        RejectedError: an approver rejected these bytes on this evidence.
        WaitingError: approvals are missing.
        UnpreparedError: an administrator must create the model of approvals first.
    """
    registry = store.registry

    def tag(words: str) -> None:
        if not dry_run and version.tags.get(tags.APPROVAL) != words:
            registry.set_version_tag(version.name, version.number, tags.APPROVAL, words)

    if approvals.asked(policy) and not dry_run:
        approvals.create(registry, subject.name, policy)
    decided, counted = approvals.state(
        registry,
        subject,
        policy,
        history,
        lambda: proposals.excluded(registry, history, version, subject, who),
    )
    if not dry_run:
        proposals.take_note(store, history, counted, subject)
    command = proposals.command(statements.APPROVE, subject, policy, overrides)
    if rejected := decided.rejected:
        words = f"rejected for @{subject.alias} by {rejected.approver}: {reason(rejected)}"
        tag(words)
        raise RejectedError(
            f"{version.uri} was {words}. New evidence or new bytes end this, no reason overrules"
            f" it; an approver can change that: {command}"
        )
    approvers = ", ".join(one.approver for one in decided.approved) or "nobody"
    if missing := decided.lacks(policy.approvals):
        if not dry_run:
            proposals.propose(store, history, subject, policy.approvals, who)
        so_far = (
            f"{len(decided.approved)} of {policy.approvals} approvals for @{subject.alias}"
            f" ({approvers})"
        )
        tag(f"waiting: {so_far}")
        ignored = f"; not counted: {', '.join(decided.ignored)}" if decided.ignored else ""
        raise WaitingError(
            f"{version.uri} waits for approval, no alias was moved: {so_far}{redact(ignored)}."
            f" {missing} more, by other people than who made or proposed it: {command}; then run"
            " this again"
        )
    if not decided.approved:
        return {}
    tag(f"approved for @{subject.alias} by {approvers}")
    return {"approvals": [{**one.to_json(), "reason": reason(one)} for one in decided.approved]}


def rejection(
    store: AliasStore,
    history: Journal,
    assessment: Assessment,
    policy: PromotionConfig,
    *,
    dry_run: bool = False,
) -> str:
    """What an approver has said against a version that an alias is to return to, in words; empty
    where no rejection stands.

    A rollback goes by no evidence, so a rejection on any stands, unless the report that is recorded
    on the version is newer. It is copied into the journal.

    Args:
        store: of the registered model.
        history: what the decision is made on.
        assessment: of the version, without evidence.
        policy: its alias, and who may approve and reject.
        dry_run: write nothing.
    """
    registry, version = store.registry, assessment.version
    subject = proposals.subject_of(assessment, policy.alias)

    def others() -> list[str]:
        return [*proposals.makers(registry, version), *proposed_by(history, subject)]

    decided, counted = approvals.state(registry, subject, policy, history, others)
    if decided.rejected and (uri := version.tags.get(tags.EVALUATION)):
        try:
            report = evidence.read(uri, registry, trust.places(registry, policy))
        except StepError:  # a report that cannot be read is no newer evidence
            report = None
        if report and report.digest == version.tags.get(tags.EVIDENCE_DIGEST):
            subject = replace(
                subject,
                evidence=uri,
                evidence_digest=report.digest,
                evidence_created=report.created.isoformat(),
            )
            decided, counted = approvals.state(registry, subject, policy, history, others)
    if decided.rejected is None:
        return ""
    if not dry_run:
        proposals.take_note(store, history, counted, subject)
    return (
        f"it was rejected for @{subject.alias} by {decided.rejected.approver}:"
        f" {reason(decided.rejected)}"
    )


def withhold(
    store: AliasStore,
    history: Journal,
    wanted: Mapping[str, int | None],
    subject: Subject | None,
    who: Actor,
    policy: PromotionConfig,
    *,
    overrides: Sequence[str] = (),
    dry_run: bool = False,
) -> Withheld:
    """Leave out of a registration what this actor may not move, or what waits for approval: the
    versions are made all the same.

    Args:
        store: of the registered model.
        history: what the decision is made on.
        wanted: alias to version, as the policy has decided.
        subject: what the policy's alias is to move to; None where it moves to nothing new.
        who: registers.
        policy: approvals and protected aliases count.
        overrides: of this run, for the command that an approver is shown.
        dry_run: write nothing.
    """
    left, words = dict(wanted), []
    waiting: int | None = None
    line = {policy.alias, previous_of(policy.alias), challenger_of(policy.alias)}
    for alias in [alias for alias, after in wanted.items() if history.aliases.get(alias) != after]:
        if fault := protection.fault_of(alias, who, policy.protected):
            words.append(fault)
            left = {
                other: after
                for other, after in left.items()
                if other != alias and not (alias in line and other in line)
            }
    details: dict[str, Any] = {}
    if subject is not None and policy.alias in left:
        # in a dry run there may be none yet
        planned = Version(subject.name, subject.version, {}, (), "", None, "", 0)
        version = store.registry.version(subject.name, subject.version) or planned
        try:
            details = require_approval(
                store, history, version, subject, who, policy, overrides=overrides, dry_run=dry_run
            )
        except (UndecidedError, UnpreparedError) as error:
            words.append(str(error))
            waiting = subject.version if isinstance(error, WaitingError) else None
            left = {alias: after for alias, after in left.items() if alias not in line}
    return Withheld(left, "; ".join(words), details, waiting)
