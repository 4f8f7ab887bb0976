"""What the history holds of proposals, approvals and rejections: entries that move no alias."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from steps.core.redaction import redact
from steps.registry.entry import Entry
from steps.registry.journal import Journal
from steps.registry.record import Record, as_json
from steps.registry.result import active_run_id
from steps.registry.statements import (
    APPROVE,
    LAST,
    REJECT,
    SCHEMA,
    Decision,
    Statement,
    Subject,
    moment,
)

WAITING = "waiting"  # kind of the entry by which a version was proposed
ROLLBACK = "rollback"  # kind of the entry by which an alias was moved back
CLOCKS_MS = 60_000  # by how much the clocks of two workers of a server may differ
MOST_WORDS = 500  # characters of a statement's reason that entries and tags repeat


def proposers(history: Journal, subject: Subject) -> list[str]:
    """Who proposed a subject first, by the journal; empty where no user has yet."""
    proposals = [
        record for record in _records(history) if record.kind == WAITING and about(record, subject)
    ]
    return [proposals[0].actor] if proposals else []


def proposed_by(history: Journal, subject: Subject) -> list[str]:
    """Who proposed these bytes for this alias, on whatever evidence."""
    return [
        record.actor
        for record in _records(history)
        if record.kind == WAITING
        and (record.details.get("alias"), record.details.get("digest"))
        == (subject.alias, subject.digest)
    ]


def proposal(history: Journal, version: int, alias: str) -> Record | None:
    """The newest proposal of a version for an alias, with the evidence that it was made on."""
    proposals = [record for record in _records(history) if record.kind == WAITING]
    return next(
        (
            record
            for record in reversed(proposals)
            if (record.details.get("version"), record.details.get("alias")) == (version, alias)
        ),
        None,
    )


def about(record: Record, subject: Subject) -> bool:
    """Whether an entry is about these bytes, this evidence and this alias."""
    said = (record.details.get("alias"), record.details.get("digest"), record.evidence_digest)
    return said == (subject.alias, subject.digest, subject.evidence_digest)


def entry_about(decision: Decision, subject: Subject) -> Record:
    """The journal's entry about an approver's statement."""
    said, of = reason(decision), decision.statement.subject
    if not of.same(subject):  # a rejection on a newer report than the one that was used
        subject = replace(
            subject,
            evidence=of.evidence,
            evidence_digest=of.evidence_digest,
            evidence_created=of.evidence_created,
        )
    details = {**decision.to_json(), "reason": said}
    return entry(
        decision.journal_id,
        decision.statement.decision,
        subject,
        decision.approver,
        decision.authenticated,
        said,
        details,
    )


def entry(
    entry_id: str,
    kind: str,
    subject: Subject,
    actor: str,
    authenticated: bool,
    words: str,
    details: Mapping[str, Any],
) -> Record:
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
        details={
            **details,
            "version": subject.version,
            "alias": subject.alias,
            "digest": subject.digest,
        },
    )


def reason(decision: Decision) -> str:
    """An approver's words in one line, without secrets and not longer than a line should be."""
    return redact(" ".join(decision.statement.reason.split()))[:MOST_WORDS]


def repeats(history: Journal, statement: Statement, number: int, created_ms: int) -> int | None:
    """Number under which the journal has the statement already, where it is there a second time;
    None where it is not.

    Whoever may edit ``<name>.approvals`` can take a statement away and write its text and signature
    anew, behind later statements.

    Args:
        history: the journal.
        statement: as it is now.
        number: version of ``<name>.approvals`` that holds it.
        created_ms: when that version was made, ms since 1970 by the server's clock.
    """
    for entry in _genuine(history):
        first = entry.record.details.get("approval")
        later = first != number or created_ms > entry.created_ms + CLOCKS_MS
        known = (
            entry.record.kind in (APPROVE, REJECT)
            and isinstance(first, int)
            and entry.record.id == statement.journal_id(first)
        )
        if known and later:
            return int(str(first))
    return None


def rejections(history: Journal, subject: Subject) -> list[tuple[Decision, int]]:
    """Rejections of these bytes for this alias, whatever the model was named, with times in ms."""
    rejected: list[tuple[Decision, int]] = []
    for entry in _genuine(history):
        record, details = entry.record, entry.record.details
        if record.kind != REJECT or (details.get("alias"), details.get("digest")) != (
            subject.alias,
            subject.digest,
        ):
            continue
        evidence = {"evidence": record.evidence, "evidence_digest": record.evidence_digest}
        of = {**subject.to_json(), **evidence, "evidence_created": details.get("evidence_created")}
        said = {key: details.get(key) for key in ("reason", "actor", "created")}
        try:
            text = as_json(
                {
                    "schema": SCHEMA,
                    "decision": REJECT,
                    "subject": of,
                    "authenticated": False,
                    "id": record.id,
                    **said,
                }
            )
            decision = Decision(
                int(details["approval"]),
                Statement.from_json(text),
                record.actor,
                details.get("key"),
                record.authenticated,
            )
        except (ValueError, TypeError, KeyError):  # an entry that somebody else wrote
            continue
        rejected.append((decision, entry.created_ms))
    return rejected


def taken_back(history: Journal, subject: Subject) -> Entry | None:
    """The newest entry that moved the alias from these bytes back: by a rollback, to a version that
    had the alias before them, or to none. None where nothing did.
    """
    held: list[int] = []  # versions that had the alias, each once, oldest first
    newest: Entry | None = None
    for entry in _genuine(history):
        for move in entry.record.moves:
            if move.alias != subject.alias:
                continue
            before, after = move.before, move.after
            if before is not None:
                held += [before] if before not in held else []
                back = after is None or after in held[: held.index(before)]
                if (back or entry.record.kind == ROLLBACK) and _has_bytes_of(
                    history, entry, before, subject
                ):
                    newest = entry
            if after is not None and after not in held:
                held.append(after)
    return newest


def given_before(history: Journal, decision: Decision, created_ms: int, entry: Entry) -> bool:
    """Whether a statement was made before an entry of the journal.

    Args:
        history: the journal.
        decision: the statement.
        created_ms: when its version of ``<name>.approvals`` was made, ms since 1970 by the server's
            clock.
        entry: that may be later.
    """
    copied = history.find(decision.journal_id)
    said_ms = moment(decision.statement.created, LAST).timestamp() * 1000  # by its author's clock
    return (
        (copied is not None and copied.number < entry.number)
        or created_ms <= entry.created_ms
        or said_ms + CLOCKS_MS < entry.created_ms
    )


def _has_bytes_of(history: Journal, entry: Entry, number: int, subject: Subject) -> bool:
    """Whether a version that an entry moved has the bytes of a subject, as the journal knows it."""
    for known in (entry, *reversed(history.entries)):
        identity = known.record.identities.get(str(number), {}) if not known.earlier else {}
        if recorded := identity.get("digest"):
            return recorded == subject.digest
    return number == subject.version


def in_order(
    decisions: Sequence[Decision], removed: Sequence[tuple[Decision, int]], made: Mapping[int, int]
) -> list[Decision]:
    """All decisions, oldest first; one that was removed goes before later numbers and times."""
    line, left = [], list(removed)
    for decision in decisions:
        before = [
            (other, at)
            for other, at in left
            if decision.number > other.number or made[decision.number] > at
        ]
        left = [pair for pair in left if pair not in before]
        line += [*(other for other, _ in before), decision]
    return [*line, *(other for other, _ in left)]


def _records(history: Journal) -> Iterator[Record]:
    return (entry.record for entry in _genuine(history))


def _genuine(history: Journal) -> Iterator[Entry]:
    return (entry for entry in history.entries if entry.holds and not entry.altered)
