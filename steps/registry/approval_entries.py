"""What the history holds of proposals, approvals and rejections: entries that move no alias."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from steps.core.redaction import redact
from steps.registry.journal import Journal, Record
from steps.registry.outcome import active_run_id
from steps.registry.statements import Decision, Subject

WAITING = "waiting"  # kind of the entry by which a version was proposed
MOST_WORDS = 500  # characters of a statement's reason that entries and tags repeat


def proposers(history: Journal, subject: Subject) -> list[str]:
    """Who proposed a subject first, by the journal; empty where nobody has yet."""
    found = [record for record in _genuine(history) if record.kind == WAITING and about(record, subject)]
    return [found[0].actor] if found else []


def proposal(history: Journal, version: int, alias: str) -> Record | None:
    """The newest proposal of a version for an alias: its evidence is what a promotion went by when it asked for approval."""
    found = [record for record in _genuine(history) if record.kind == WAITING]
    return next((each for each in reversed(found) if (each.details.get("version"), each.details.get("alias")) == (version, alias)), None)


def about(record: Record, subject: Subject) -> bool:
    """Whether an entry is about these bytes, this evidence and this alias."""
    said = (record.details.get("alias"), record.details.get("digest"), record.evidence_digest)
    return said == (subject.alias, subject.digest, subject.evidence_digest)


def entry_about(decision: Decision, subject: Subject) -> Record:
    """The journal's entry about an approver's statement."""
    said = reason(decision)
    details = {**decision.to_json(), "reason": said}
    return entry(decision.journal_id, decision.statement.decision, subject, decision.approver, decision.authenticated, said, details)


def entry(entry_id: str, kind: str, subject: Subject, actor: str, authenticated: bool, words: str, details: Mapping[str, Any]) -> Record:
    """An entry about a subject, which moves no alias."""
    return Record(
        id=entry_id,
        kind=kind,
        moves=(),
        actor=actor,
        authenticated=authenticated,
        reason=words,
        evidence=subject.evidence,
        evidence_digest=subject.evidence_digest,
        identities={str(subject.version): {"model_id": None, "digest": subject.digest}},
        run_id=active_run_id(),
        details={**details, "version": subject.version, "alias": subject.alias, "digest": subject.digest},
    )


def reason(decision: Decision) -> str:
    """An approver's words in one line, without secrets and not longer than a line should be."""
    return redact(" ".join(decision.statement.reason.split()))[:MOST_WORDS]


def _genuine(history: Journal) -> Iterator[Record]:
    return (each.record for each in history.entries if each.holds and not each.altered)
