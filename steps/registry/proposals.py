"""Versions that wait for approval: who proposed them, and what an approver is asked."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

from steps.config.promotion import PromotionConfig
from steps.core import tags
from steps.core.commands import mlflow_run
from steps.core.redaction import redact_override
from steps.registry import approvers, statements
from steps.registry.actors import CLAIMED, Actor
from steps.registry.alias_store import AliasStore
from steps.registry.approval_entries import WAITING, entry, entry_about, proposers
from steps.registry.client import RegistryClient
from steps.registry.eligibility import UNKNOWN, Assessment
from steps.registry.evidence import Evidence
from steps.registry.journal import Journal
from steps.registry.model_version import Version
from steps.registry.record import new_id
from steps.registry.statements import Decision, Subject

log = logging.getLogger(__name__)


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
    alias: str,
) -> Subject | None:
    """What a registration would move an alias to; None where the alias stays.

    Args:
        report: the evidence.
        planned: version number of each evaluated model by model id.
        wanted: alias to version, as the policy has decided.
        current: the aliases now.
        alias: to move.
    """
    number = wanted.get(alias)
    if number is None or number == current.get(alias):
        return None
    digests = (one.digest for one in report.candidates if planned.get(one.model_id) == number)
    return Subject(
        report.registered_name,
        number,
        alias,
        next(digests, UNKNOWN),
        report.digest,
        report.uri,
        report.created.isoformat(),
    )


def command(
    decision: str, subject: Subject, policy: PromotionConfig, overrides: Sequence[str]
) -> str:
    """The command by which an approver approves or rejects, under the policy of this run.

    Args:
        decision: ``approve`` or ``reject``.
        subject: what is to be approved.
        policy: who may approve it.
        overrides: of this run; an approver's run needs those of the policy as well, to go by the
            same evidence and the same gates.
    """
    parameters = {"target": f"models:/{subject.name}/{subject.version}"}
    if subject.alias != "champion":
        parameters["alias"] = subject.alias
    given = [
        redact_override(word)
        for word in overrides
        if word.lstrip("+").startswith("promotion") and "promotion.watch" not in word
    ]
    key = " -P signing_key=…" if any(map(approvers.is_key, policy.approvers)) else ""
    return f"{mlflow_run(decision, parameters, given)} -P reason='…'{key}"


def makers(registry: RegistryClient, version: Version) -> list[str]:
    """Who registered a version and who ran the step that logged its model, where recorded."""
    run = registry.tags_of_maker(registry.logged_model(version.model_id))
    names = [
        version.tags.get(tags.MADE_BY, "").removesuffix(f" {CLAIMED}"),
        run.get("mlflow.user", ""),
    ]
    return [name for name in names if name]


def excluded(
    registry: RegistryClient,
    history: Journal,
    version: Version,
    subject: Subject,
    who: Actor | None = None,
) -> list[str]:
    """Names whose approval does not count. Where the version was not proposed yet, whoever asks now
    proposes it.

    Args:
        registry: the calls to the tracking server.
        history: the journal of the registered model.
        version: that is to be approved.
        subject: the same with its bytes, evidence and alias.
        who: asks for the move; None where somebody only approves.
    """
    proposed = proposers(history, subject) or ([who.name] if who else [])
    return [*makers(registry, version), *proposed]


def propose(store: AliasStore, history: Journal, subject: Subject, needed: int, who: Actor) -> None:
    """Write into the history that a version waits for approvals, once."""
    if proposers(history, subject) or proposers(store.read(), subject):
        return
    words = "approval" if needed == 1 else "approvals"
    why = f"version {subject.version} waits for {needed} {words} before @{subject.alias} moves"
    made = store.note(entry(new_id(), WAITING, subject, who.name, who.authenticated, why, {}))
    log.info("%s, entry %d of %s", why, made.number, store.history)


def take_note(
    store: AliasStore, history: Journal, decisions: Sequence[Decision], subject: Subject
) -> None:
    """Copy approvers' decisions into the history, once; it needs no permission of theirs."""
    missing = [one for one in decisions if history.find(one.journal_id) is None]
    # what the decision saw may be older than what is there
    now = store.read() if missing else history
    for decision in missing:
        if now.find(decision.journal_id) is None:
            store.note(entry_about(decision, subject))
