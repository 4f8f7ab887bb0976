"""What an approver says about a version, as a tag of ``<name>.approvals`` holds it."""

from __future__ import annotations

import hashlib
import json
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from steps.registry.actors import Actor
from steps.registry.gateway import as_json

SCHEMA = "slm-promote/approval/1"
APPROVE, REJECT = "approve", "reject"
NO_EVIDENCE = "none"  # evidence digest of a version that is promoted by force without a report
LONGEST_NAME = 255  # characters; MLflow's user store keeps no longer ones


@dataclass(frozen=True)
class Subject:
    """What is approved: an approval of it says nothing about other bytes, other evidence or another alias."""

    name: str  # registered model
    version: int  # for people and the journal; the digest is the identity
    alias: str
    digest: str  # of the bytes
    evidence_digest: str
    evidence: str | None = None  # report URI
    forced: bool = False  # the version does not pass: an approval of one that passed says nothing about overruling the policy

    def to_json(self) -> dict[str, Any]:
        return dict(vars(self))

    def same(self, other: Subject) -> bool:
        return (self.name, self.alias, self.digest, self.evidence_digest) == (other.name, other.alias, other.digest, other.evidence_digest)


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
        return Statement(decision, subject, reason, who.name, who.authenticated, created, uuid.uuid4().hex)

    @staticmethod
    def from_json(text: str) -> Statement:
        """Raises ValueError for a text that is not a statement."""
        try:
            plain = json.loads(text)
            if plain["schema"] != SCHEMA or plain["decision"] not in (APPROVE, REJECT) or not isinstance(plain["authenticated"], bool):
                raise ValueError(f"not a statement of the schema {SCHEMA}")
            subject = {key: plain["subject"].get(key) for key in Subject.__dataclass_fields__}
            words = {key: str(plain[key]) for key in ("decision", "reason", "actor", "created", "id")}
            if not words["actor"].isprintable() or len(words["actor"]) > LONGEST_NAME:
                raise ValueError("the actor is not a user name")
            return Statement(**words, authenticated=plain["authenticated"], subject=Subject(**subject))
        except (KeyError, TypeError, AttributeError, RecursionError) as error:
            raise ValueError(f"not a statement ({type(error).__name__}: {error})") from error


@dataclass(frozen=True)
class Decision:
    """A statement whose author the policy accepts."""

    number: int  # version of <name>.approvals
    statement: Statement
    approver: str  # name of the key that signed, else the statement's actor
    key: str | None  # fingerprint of the key that signed
    authenticated: bool  # signed by a key of the policy; else the name is what whoever may edit <name>.approvals wrote

    @property
    def names(self) -> set[str]:
        """Names by which the approver is known; a name that is only claimed beside a signature says nothing."""
        return {self.approver, self.statement.actor} if self.statement.authenticated else {self.approver}

    @property
    def journal_id(self) -> str:
        """Id of the journal's entry about it, the same for everybody who takes note."""
        return hashlib.sha256(f"{self.number} {self.statement.to_json()}".encode()).hexdigest()[:32]

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
        }
