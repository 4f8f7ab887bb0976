"""What an approver says about a version, as a tag of ``<name>.approvals`` holds it."""

from __future__ import annotations

import hashlib
import json
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from steps.registry.actors import Actor
from steps.registry.record import as_json

SCHEMA = "slm-promote/approval/1"
APPROVE, REJECT = "approve", "reject"
NO_EVIDENCE = "none"  # evidence digest of a version that is promoted by force without a report
FIRST, LAST = datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)
LONGEST_NAME = 255  # characters; MLflow's user store keeps no longer ones


@dataclass(frozen=True)
class Subject:
    """What is approved: these bytes for this alias on this evidence, and nothing else."""

    name: str  # registered model
    version: int  # for people and the journal; the digest is the identity
    alias: str
    digest: str  # of the bytes
    evidence_digest: str
    evidence: str | None = None  # report URI
    # ISO-8601, of the report; None without one, and in statements of earlier days
    evidence_created: str | None = None
    # the version does not pass: an approval of one that passed says nothing about overruling the
    # policy
    forced: bool = False

    def to_json(self) -> dict[str, Any]:
        return {
            key: value
            for key, value in vars(self).items()
            if (key, value) != ("evidence_created", None)
        }

    def same_version(self, other: Subject) -> bool:
        """Whether both are about the same bytes and alias, on whatever evidence."""
        return (self.name, self.alias, self.digest) == (other.name, other.alias, other.digest)

    def same(self, other: Subject) -> bool:
        return (self.name, self.alias, self.digest, self.evidence_digest) == (
            other.name,
            other.alias,
            other.digest,
            other.evidence_digest,
        )


@dataclass(frozen=True)
class Statement:
    """What an approver said."""

    decision: str  # approve or reject
    subject: Subject
    reason: str
    actor: str
    authenticated: bool  # as the author's own process wrote it
    created: str  # ISO-8601
    id: str

    def to_json(self) -> str:
        return as_json({"schema": SCHEMA, **vars(self), "subject": self.subject.to_json()})

    @staticmethod
    def by(who: Actor, decision: str, subject: Subject, reason: str) -> Statement:
        """What somebody says now."""
        created = datetime.now(UTC).isoformat(timespec="milliseconds")
        return Statement(
            decision, subject, reason, who.name, who.authenticated, created, uuid.uuid4().hex
        )

    def holds_for(self, subject: Subject) -> bool:
        """Whether a rejection is against this subject: the same evidence, or the same version on
        evidence that is not newer.

        An older report is not new evidence, and neither is a missing one. A statement that does not
        say when its report was made counts by its own time.
        """
        if self.subject.same(subject) or not self.subject.same_version(subject):
            return self.subject.same(subject)
        made = subject.evidence_created
        return made is None or moment(
            self.subject.evidence_created or self.created, LAST
        ) >= moment(made, FIRST)

    def journal_id(self, number: int) -> str:
        """Id of the journal's entry about it as ``<name>.approvals`` version ``number``."""
        return hashlib.sha256(f"{number} {self.to_json()}".encode()).hexdigest()[:32]

    @staticmethod
    def from_json(text: str) -> Statement:
        """Raises ValueError for a text that is not a statement."""
        try:
            plain = json.loads(text)
            if (
                plain["schema"] != SCHEMA
                or plain["decision"] not in (APPROVE, REJECT)
                or not isinstance(plain["authenticated"], bool)
            ):
                raise ValueError(f"not a statement of the schema {SCHEMA}")
            subject = {key: plain["subject"].get(key) for key in Subject.__dataclass_fields__}
            typed = all(
                isinstance(subject[key], str)
                for key in ("name", "alias", "digest", "evidence_digest")
            )
            if not typed or not all(
                isinstance(subject[key], str | None) for key in ("evidence", "evidence_created")
            ):
                raise ValueError("its subject is not a version on some evidence")
            words = {
                key: str(plain[key]) for key in ("decision", "reason", "actor", "created", "id")
            }
            if not words["actor"].isprintable() or len(words["actor"]) > LONGEST_NAME:
                raise ValueError("the actor is not a user name")
            statement = Statement(
                **words, authenticated=plain["authenticated"], subject=Subject(**subject)
            )
            # a ValueError where a text is not Unicode, which the history could not hold
            statement.to_json().encode()
            return statement
        except (KeyError, TypeError, AttributeError, RecursionError) as error:
            raise ValueError(f"not a statement ({type(error).__name__}: {error})") from error


@dataclass(frozen=True)
class Decision:
    """A statement whose author the policy accepts."""

    number: int  # version of <name>.approvals
    statement: Statement
    approver: str  # name of the key that signed, else the statement's actor
    key: str | None  # fingerprint of the key that signed
    # signed by a key of the policy; else the name is what whoever may edit <name>.approvals wrote
    authenticated: bool

    @property
    def names(self) -> set[str]:
        """Names by which the approver is known; beside a signature, no claimed one."""
        return (
            {self.approver, self.statement.actor}
            if self.statement.authenticated
            else {self.approver}
        )

    @property
    def journal_id(self) -> str:
        """Id of the journal's entry about it."""
        return self.statement.journal_id(self.number)

    def to_json(self) -> dict[str, Any]:
        """As an entry of the journal holds it."""
        return {
            "approval": self.number,
            "by": self.approver,
            "actor": self.statement.actor,
            "key": self.key,
            "authenticated": self.authenticated,
            "reason": self.statement.reason,
            "created": self.statement.created,
            "evidence_created": self.statement.subject.evidence_created,
        }


def moment(text: str, otherwise: datetime) -> datetime:
    """A time in ISO-8601, by UTC where it does not say."""
    try:
        read = datetime.fromisoformat(text)
    except ValueError:
        return otherwise
    return read if read.tzinfo else read.replace(tzinfo=UTC)
