"""Whether other people let a version move: approvals that are missing, rejections, and the proposal
that asks for them.
"""

from __future__ import annotations

import logging
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from steps.config.root import Config
from steps.core.redaction import redact, redact_override
from steps.registry import approvals, journal, protection, statements
from steps.registry.actors import CLAIMED, Actor
from steps.registry.alias_store import AliasStore, View
from steps.registry.aliases import APPROVAL_TAG, MADE_BY_TAG, challenger_of, previous_of
from steps.registry.approval_entries import WAITING, entry, entry_about, proposers, reason
from steps.registry.client import RegistryClient, Version
from steps.registry.eligibility import UNKNOWN, Assessment
from steps.registry.evidence import Evidence
from steps.registry.result import RefusedError
from steps.registry.statements import Decision, Subject

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Withheld:
    """What a registration may move, and what it leaves where it is."""

    aliases: Mapping[str, int | None]  # alias to version, of those that may move
    words: str  # why the others may not
    details: Mapping[str, Any]  # what the journal's entry says about approvals
    waiting: int | None  # version that waits for approvals


class UndecidedError(RefusedError):
    """What other people say of the version is against the move, and may change.

    Args:
        message: for the user.
        seen: number of the newest statement of ``<name>.approvals`` that was read.
    """

    def __init__(self, message: str, seen: int) -> None:
        super().__init__(message)
        self.seen = seen


class WaitingError(UndecidedError):
    """Nothing is against the move but that approvals are missing; no alias was moved."""


class RejectedError(UndecidedError):
    """An approver rejected the version on this evidence; no alias was moved."""


def require_approval(
    registry: RegistryClient,
    store: AliasStore,
    view: View,
    version: Version,
    subject: Subject,
    who: Actor,
    config: Config,
) -> dict[str, Any]:
    """Refuse a move until enough other people have approved it, and as long as it is rejected.

    The first refusal is the proposal: it is written into the journal, with its author, and onto the
    version as a tag. Statements of
    approvers are copied into the journal.

    Args:
        registry: the calls to the tracking server.
        store: of the registered model.
        view: what the decision is made on.
        version: that the alias is to move to.
        subject: the same with its bytes, evidence and alias.
        who: asks for the move.
        config: ``promotion`` and ``dry_run`` count; a dry run writes nothing.

    Returns:
        What the journal's entry of the move says about its approvals; empty where none were asked
        for.

    Raises:
        RejectedError: an approver rejected these bytes on this evidence.
        WaitingError: approvals are missing.
    """
    needed = config.promotion.approvals
    if approvals.asked(config.promotion) and not config.dry_run:
        approvals.create(registry, subject.name)
    history = view.journal
    decided, counted = approvals.state(
        registry,
        subject,
        config.promotion,
        history,
        lambda: excluded(registry, history, version, subject, who),
    )
    if not config.dry_run:
        _take_note(store, view.journal, subject, counted)
    again = f"an approver can change that: {command(statements.APPROVE, subject, config)}"
    if rejected := decided.rejected:
        words = f"rejected for @{subject.alias} by {rejected.approver}: {reason(rejected)}"
        _tag(registry, version, words, config)
        raise RejectedError(
            f"{version.uri} was {words}. New evidence or new bytes end this, no reason overrules"
            f" it; {again}",
            decided.seen,
        )
    if missing := decided.lacks(needed):
        _propose(store, view.journal, subject, needed, who, config)
        so_far = (
            f"{len(decided.approved)} of {needed} approvals for @{subject.alias}"
            f" ({approvals.who_approved(decided.approved)})"
        )
        _tag(registry, version, f"waiting: {so_far}", config)
        ignored = f"; not counted: {', '.join(decided.ignored)}" if decided.ignored else ""
        raise WaitingError(
            f"{version.uri} waits for approval, no alias was moved: {so_far}{redact(ignored)}."
            f" {missing} more, by other people than who made or proposed it:"
            f" {command(statements.APPROVE, subject, config)}; then run this again",
            decided.seen,
        )
    if not decided.approved:
        return {}
    _tag(
        registry,
        version,
        f"approved for @{subject.alias} by {approvals.who_approved(decided.approved)}",
        config,
    )
    return {"approvals": [{**each.to_json(), "reason": reason(each)} for each in decided.approved]}


def withhold(
    registry: RegistryClient,
    store: AliasStore,
    view: View,
    wanted: Mapping[str, int | None],
    subject: Subject | None,
    who: Actor,
    config: Config,
) -> Withheld:
    """Leave out of a registration what this actor may not move, or what waits for approval: the
    versions are made all the same.

    Args:
        registry: the calls to the tracking server.
        store: of the registered model.
        view: what the decision is made on.
        wanted: alias to version, as the policy has decided.
        subject: what the policy's alias is to move to; None where it moves to nothing new.
        who: registers.
        config: ``promotion`` and ``dry_run`` count.

    """
    left, words = dict(wanted), []
    waiting: int | None = None
    line = {
        config.promotion.alias,
        previous_of(config.promotion.alias),
        challenger_of(config.promotion.alias),
    }
    for alias in [alias for alias, after in wanted.items() if view.aliases.get(alias) != after]:
        if fault := protection.fault_of(alias, who, config.promotion.protected):
            words.append(fault)
            left = {
                other: after
                for other, after in left.items()
                if other != alias and not (alias in line and other in line)
            }
    details: dict[str, Any] = {}
    if subject is not None and config.promotion.alias in left:
        # in a dry run there may be none yet
        planned = Version(subject.name, subject.version, {}, (), "", None, "", 0)
        version = registry.version(subject.name, subject.version) or planned
        try:
            details = require_approval(registry, store, view, version, subject, who, config)
        except (WaitingError, RejectedError) as error:
            words.append(str(error))
            waiting = subject.version if isinstance(error, WaitingError) else None
            left = {alias: after for alias, after in left.items() if alias not in line}
    return Withheld(left, "; ".join(words), details, waiting)


def subject_of(assessment: Assessment, alias: str) -> Subject:
    """What is to be approved when an alias is to move to a version on this evidence."""
    version, report = assessment.version, assessment.evidence
    evidence_digest = report.digest if report else statements.NO_EVIDENCE
    uri, created = (report.uri, report.created.isoformat()) if report else (None, None)
    return Subject(
        version.name,
        version.number,
        alias,
        assessment.digest,
        evidence_digest,
        uri,
        created,
        forced=bool(assessment.objections),
    )


def planned_subject(
    report: Evidence,
    planned: Mapping[str, int],
    wanted: Mapping[str, int | None],
    current: Mapping[str, int],
    config: Config,
) -> Subject | None:
    """What a registration would move the policy's alias to; None where the alias stays.

    Args:
        report: the evidence.
        planned: version number of each evaluated model by model id.
        wanted: alias to version, as the policy has decided.
        current: the aliases now.
        config: ``promotion.alias`` counts.
    """
    alias = config.promotion.alias
    number = wanted.get(alias)
    if number is None or number == current.get(alias):
        return None
    candidate = next(
        (each for each in report.candidates if planned.get(each.model_id) == number), None
    )
    digest, created = candidate.digest if candidate else UNKNOWN, report.created.isoformat()
    return Subject(
        report.registered_name, number, alias, digest, report.digest, report.uri, created
    )


def makers(registry: RegistryClient, version: Version) -> list[str]:
    """Who registered a version and who ran the step that logged its model, as far as it is written
    down.
    """
    logged = registry.logged_model(version.model_id) if version.model_id else None
    run = registry.run_tags(logged.source_run_id) if logged and logged.source_run_id else None
    names = [
        version.tags.get(MADE_BY_TAG, "").removesuffix(f" {CLAIMED}"),
        (run or {}).get("mlflow.user", ""),
    ]
    return [name for name in names if name]


def command(decision: str, subject: Subject, config: Config) -> str:
    """The command by which an approver approves or rejects, under the policy of this run."""
    words = [
        "mlflow",
        "run",
        ".",
        "-e",
        decision,
        "--env-manager",
        "local",
        "-P",
        f"target=models:/{subject.name}/{subject.version}",
    ]
    if subject.alias != "champion":
        words += ["-P", f"alias={subject.alias}"]
    if given := _policy_words():
        words += ["-P", f"overrides={shlex.join(given)}"]
    return (
        shlex.join(words)
        + " -P reason='…'"
        + (" -P signing_key=…" if any(map(approvals.is_key, config.promotion.approvers)) else "")
    )


def _policy_words() -> list[str]:
    """The overrides of this run that an approver's run needs as well, to look at the same evidence
    by the same gates.
    """
    from hydra.core.hydra_config import HydraConfig

    given = list(HydraConfig.get().overrides.task) if HydraConfig.initialized() else []
    return [
        redact_override(word)
        for word in given
        if word.lstrip("+").startswith("promotion") and "promotion.watch" not in word
    ]


def excluded(
    registry: RegistryClient,
    history: journal.Journal,
    version: Version,
    subject: Subject,
    who: Actor | None = None,
) -> list[str]:
    """Names whose approval does not count. Where nobody proposed the version yet, whoever asks now
    does.

    Args:
        registry: the calls to the tracking server.
        history: the journal of the registered model.
        version: that is to be approved.
        subject: the same with its bytes, evidence and alias.
        who: asks for the move; None where somebody only approves.
    """
    proposed = proposers(history, subject) or ([who.name] if who else [])
    return [*makers(registry, version), *proposed]


def _propose(
    store: AliasStore,
    history: journal.Journal,
    subject: Subject,
    needed: int,
    who: Actor,
    config: Config,
) -> None:
    if config.dry_run or proposers(history, subject) or proposers(store.read(), subject):
        return
    words = "approval" if needed == 1 else "approvals"
    why = f"version {subject.version} waits for {needed} {words} before @{subject.alias} moves"
    made = store.note(
        entry(journal.new_id(), WAITING, subject, who.name, who.authenticated, why, {})
    )
    log.info("%s, entry %d of %s", why, made.number, store.history)


def _take_note(
    store: AliasStore, history: journal.Journal, subject: Subject, decisions: Sequence[Decision]
) -> None:
    """Copy into the journal what approvers said of a subject, once: they need no permission on the
    journal themselves.
    """
    missing = [each for each in decisions if history.find(each.journal_id) is None]
    # what the decision saw may be older than what is there
    now = store.read() if missing else history
    for each in missing:
        if now.find(each.journal_id) is None:
            store.note(entry_about(each, subject))


def _tag(registry: RegistryClient, version: Version, words: str, config: Config) -> None:
    if not config.dry_run and version.tags.get(APPROVAL_TAG) != words:
        registry.set_version_tag(version.name, version.number, APPROVAL_TAG, words)
