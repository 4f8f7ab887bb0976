"""One change of the aliases of a registered model, as a tag of an entry holds it."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from steps.registry.actors import Actor

LARGEST_NUMBER = 2**31 - 1  # of a version: the database's column is an integer of 32 bits
OBSERVED = "observed"  # kind of a record that takes note of a move that was made past this project


@dataclass(frozen=True)
class Move:
    """One alias, from a version to another; None stands for no version."""

    alias: str
    before: int | None
    after: int | None


@dataclass(frozen=True)
class Record:
    """One change of aliases: all of its moves hold, or none."""

    id: str
    kind: str  # register, promote, rollback, observed; waiting, approve and reject move no alias
    moves: tuple[Move, ...]
    actor: str
    reason: str
    forced: bool = False
    profile: str | None = None
    evidence: str | None = None  # report URI
    evidence_digest: str | None = None
    run_id: str | None = None  # MLflow run that made the move
    details: Mapping[str, Any] = field(default_factory=dict)
    created: str = ""  # ISO-8601, by the clock of the writer: for people; the order is the number's
    # the tracking server confirmed the actor; False: the name is claimed, as in all older entries
    authenticated: bool = False
    # creation time of the registered model, ms since 1970: one that is deleted and made anew has
    # another
    incarnation: str = ""
    # version to {"model_id": …, "digest": …}
    identities: Mapping[str, Mapping[str, str | None]] = field(default_factory=dict)
    # the entries before, by number, to their digests: see hash_chain.py
    previous: Mapping[str, str] = field(default_factory=dict)

    @property
    def who(self) -> str:
        """The actor as people read it."""
        return self.actor if self.kind == OBSERVED else Actor(self.actor, self.authenticated).shown

    def to_json(self) -> str:
        plain = dict(vars(self))
        plain["moves"] = [[move.alias, move.before, move.after] for move in self.moves]
        for name in ("details", "identities", "previous"):
            plain[name] = dict(plain[name])
        return as_json(plain)

    @staticmethod
    def from_json(text: str) -> Record:
        """The record in a tag; fields that this version does not know are passed over.

        Raises:
            ValueError, TypeError, KeyError: the text is not a record.
        """
        plain = json.loads(text)
        known = {one.name for one in fields(Record)}
        moves = tuple(
            Move(str(alias), _number(before), _number(after))
            for alias, before, after in plain["moves"]
        )
        record = Record(
            **{**{key: value for key, value in plain.items() if key in known}, "moves": moves}
        )
        if wrong := [
            name
            for name in ("id", "kind", "actor", "reason", "incarnation")
            if not isinstance(getattr(record, name), str)
        ]:
            raise TypeError(f"{wrong[0]} is not a string")
        mappings = [record.details, record.identities, record.previous, *record.identities.values()]
        if not all(isinstance(one, Mapping) for one in mappings) or not all(
            isinstance(one, str) for one in record.previous.values()
        ):
            raise TypeError("details, identities or previous are not as this project writes them")
        return record


def new_id() -> str:
    return uuid.uuid4().hex


def _number(value: object) -> int | None:
    if value is None:
        return None
    if not 0 < (number := int(str(value))) <= LARGEST_NUMBER:
        raise ValueError(f"{str(value)[:40]} is not the number of a version")
    return number


def as_json(value: object) -> str:
    """Canonical JSON, as tags hold it."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def sentence(record: Record) -> str:
    """The record as the UI shows it: the moves in the first line, then who and why."""
    moves = (
        ", ".join(
            f"{move.alias} {move.before or 'none'} → {move.after or 'none'}"
            for move in record.moves
        )
        or "no alias moves"
    )
    forced = " (policy overruled)" if record.forced else ""
    evidence = f"\n\nEvidence: `{record.evidence}`" if record.evidence else ""
    return f"{moves}\n\n**{record.kind}**{forced} by {record.who}: {record.reason}{evidence}"
