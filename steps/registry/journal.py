"""The history of a registered model's aliases: an append-only journal that decides who won.

MLflow's alias is a register that the last writer wins, without a condition and without a past. What
MLflow does have is one operation
that its database makes unique: creating a model version, where (name, number) is a primary key,
numbers are handed out in the order
in which they become visible, and none is used twice. So each change of aliases is one *version* of
a second registered model,
``<name>.history``: writing it is the intent, its number is its place in the order, and folding all
records in that order tells, to
everybody alike, which of two racing moves holds and what the aliases must be. The aliases
themselves are a projection of the journal that anyone may finish. See docs/promotion-protocol.md.
"""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

from steps.core.errors import StepError
from steps.registry import chain
from steps.registry.actors import Actor
from steps.registry.client import Version, as_json

SUFFIX = ".history"
KIND_TAG = "slm.kind"  # on the registered model that is a journal
RECORD_TAG = "slm.record"  # the whole record, as JSON
ID_TAG = "slm.record_id"
# "true" once its writer saw the moves in the aliases, "finished" once another run did, "lost" once
# it lost
SETTLED_TAG = "slm.settled"
# + a key of its own: another run that brings the aliases in line, while and after it does
PROJECTION_TAG = "slm.projection."
LARGEST_NUMBER = 2**31 - 1  # of a version: the database's column is an integer of 32 bits
OBSERVED = "observed"  # kind of a record that takes note of a move that was made past this project


class DamagedRecordError(StepError):
    """An entry of a journal cannot be read."""


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
    # the entries before, by number, to their digests: see chain.py
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
        known = {each.name for each in fields(Record)}
        moves = tuple(
            Move(str(alias), _number(before), _number(after))
            for alias, before, after in plain["moves"]
        )
        found = Record(
            **{**{key: value for key, value in plain.items() if key in known}, "moves": moves}
        )
        if wrong := [
            name
            for name in ("id", "kind", "actor", "reason", "incarnation")
            if not isinstance(getattr(found, name), str)
        ]:
            raise TypeError(f"{wrong[0]} is not a string")
        mappings = [found.details, found.identities, found.previous, *found.identities.values()]
        if not all(isinstance(each, Mapping) for each in mappings) or not all(
            isinstance(each, str) for each in found.previous.values()
        ):
            raise TypeError("details, identities or previous are not as this project writes them")
        return found


@dataclass(frozen=True)
class Entry:
    """A record with its place in the journal and what became of it."""

    number: int
    record: Record
    created_ms: int  # by the server's clock
    settled: str  # "", "true" or "lost" by its writer, or "finished" by another run
    projections: tuple[str, ...] = ()  # of other runs: "open <ms since 1970>" or "done"
    holds: bool = False
    lost_to: int | None = None  # number of the entry that had moved one of its aliases before
    digest: str = ""  # sha256:… over the record's canonical JSON
    # of an earlier registered model of this name, deleted since: its version numbers do not count
    earlier: bool = False
    altered: bool = False  # a later entry knows it by another digest
    # it holds by its own word alone: a deleted entry may have moved one of its aliases before
    doubtful: bool = False


@dataclass(frozen=True)
class Journal:
    """All entries and the aliases they add up to."""

    entries: tuple[Entry, ...] = ()
    aliases: Mapping[str, int] = field(default_factory=dict)
    # alias to the number of the entry that moved it last
    last_move: Mapping[str, int] = field(default_factory=dict)
    holes: tuple[int, ...] = ()  # numbers whose entries somebody deleted
    # number of an entry that was altered or removed to what is wrong, in words
    faults: Mapping[int, str] = field(default_factory=dict)

    def tips(self) -> dict[str, str]:
        """What the next entry holds as its ``previous``."""
        return chain.tips(self.entries)

    def mistaken(self, number: int, model_id: str | None, digest: str | None) -> str:
        """What is wrong where a version is not the one that this history moved an alias to; empty
        where it may be.
        """
        for entry in self.entries:
            known = (
                entry.record.identities.get(str(number))
                if not (entry.earlier or entry.altered)
                else None
            )
            for now, then in (
                (model_id, (known or {}).get("model_id")),
                (digest, (known or {}).get("digest")),
            ):
                if now and then and now != then:
                    return f"version {number} is {now}, entry {entry.number} has it as {then}"
        return ""

    def find(self, record_id: str) -> Entry | None:
        return next((entry for entry in self.entries if entry.record.id == record_id), None)

    def served(self) -> set[int]:
        """Versions that any alias ever pointed at."""
        moves = [move for entry in self.entries if entry.holds for move in entry.record.moves]
        return {
            number for move in moves for number in (move.before, move.after) if number is not None
        }

    def held(self, alias: str) -> list[int]:
        """Versions that an alias pointed at, oldest first, each change once; what was altered since
        does not count.
        """
        found: list[int] = []
        for entry in self.entries:
            for move in entry.record.moves:
                if entry.holds and not entry.altered and move.alias == alias:
                    if move.before is not None and not found:
                        found.append(move.before)
                    if move.after is not None:
                        found.append(move.after)
        return found


def values_since(journal: Journal, alias: str, number: int) -> set[int | None]:
    """What the journal said of an alias from an entry on: what somebody who has read at least that
    far may write.
    """
    value: int | None = None
    found: set[int | None] = set()
    for entry in journal.entries:
        for move in entry.record.moves if entry.holds else ():
            if move.alias == alias:
                value = move.after
        if entry.number >= number:
            found.add(value)
    return found


def new_id() -> str:
    return uuid.uuid4().hex


def name_of(registered_name: str) -> str:
    """Name of the registered model that holds the journal of another."""
    return registered_name + SUFFIX


def fold(entries: Sequence[Entry], incarnation: int | None = None) -> Journal:
    """What the entries add up to, in the order of their numbers.

    A record holds when every alias it moves is where it says it found it; otherwise it lost to the
    entry that moved the alias last. A record written twice (a lost answer, a repeated request)
    counts once. Behind a hole, what a record found is taken as the truth, since the deleted entry
    may have moved it; the first such record of an alias is doubtful. One that its writer gave up as
    lost stays lost.

    Args:
        entries: in any order.
        incarnation: creation time of the registered model, ms since 1970. What was written for an
            earlier one of the same name moves nothing; entries that do not say are told by the
            server's clock. None takes all entries.
    """
    aliases: dict[str, int] = {}
    last_move: dict[str, int] = {}
    judged: list[Entry] = []
    holes: list[int] = []
    certain: set[str] | None = None  # behind a hole: the aliases that an entry has moved since
    seen: dict[str, int] = {}
    expected = 1
    faults = chain.verify(entries)
    for entry in sorted(entries, key=lambda each: each.number):
        entry = replace(
            entry,
            earlier=_is_earlier(entry, incarnation),
            altered=entry.number in faults and faults[entry.number].altered,
        )
        if entry.number != expected:
            holes += range(expected, entry.number)
            certain = set()
        expected = entry.number + 1
        moves = entry.record.moves
        if entry.earlier:
            judged.append(replace(entry, holds=False, lost_to=None))
            continue
        first = seen.setdefault(entry.record.id, entry.number)
        if first != entry.number:
            judged.append(replace(entry, holds=False, lost_to=first))
            continue
        wrong = [
            move.alias
            for move in moves
            if aliases.get(move.alias) != move.before and (certain is None or move.alias in certain)
        ]
        if wrong or entry.settled == chain.LOST:
            judged.append(
                replace(entry, holds=False, lost_to=last_move.get(wrong[0]) if wrong else None)
            )
            continue
        doubtful = certain is not None and not certain.issuperset(move.alias for move in moves)
        for move in moves:
            if move.after is None:
                aliases.pop(move.alias, None)
            else:
                aliases[move.alias] = move.after
            last_move[move.alias] = entry.number
            if certain is not None:
                certain.add(move.alias)
        judged.append(replace(entry, holds=True, lost_to=None, doubtful=doubtful))
    return Journal(
        tuple(judged),
        aliases,
        last_move,
        tuple(holes),
        {number: fault.words for number, fault in faults.items()},
    )


def _is_earlier(entry: Entry, incarnation: int | None) -> bool:
    if incarnation is None:
        return False
    return (
        entry.record.incarnation != str(incarnation)
        if entry.record.incarnation
        else entry.created_ms < incarnation
    )


def entry_of(version: Version) -> Entry | None:
    """The entry that a version of the journal's registered model is; None for a version that is no
    entry.

    Raises:
        DamagedRecordError: it is meant to be one and cannot be read.
    """
    text = version.tags.get(RECORD_TAG)
    if text is None:
        return None
    try:
        record = Record.from_json(text)
        digest = "sha256:" + hashlib.sha256(as_json(json.loads(text)).encode()).hexdigest()
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        name, number = version.name, version.number
        raise DamagedRecordError(
            f"entry {number} of {name!r} cannot be read: its tag {RECORD_TAG} is not a record"
            f" ({type(error).__name__}: {error}); restore the tag, or take the entry out of the"
            f" history: `MlflowClient().delete_model_version({name!r}, '{number}')`"
        ) from error
    projections = tuple(
        value for key, value in sorted(version.tags.items()) if key.startswith(PROJECTION_TAG)
    )
    return Entry(
        version.number,
        record,
        version.created_ms,
        version.tags.get(SETTLED_TAG, ""),
        projections,
        digest=digest,
    )


def _number(value: object) -> int | None:
    if value is None:
        return None
    if not 0 < (number := int(str(value))) <= LARGEST_NUMBER:
        raise ValueError(f"{str(value)[:40]} is not the number of a version")
    return number


def sentence(record: Record) -> str:
    """The record as the UI shows it: the moves in the first line, which is all that a list of
    versions has room for, then who and why.
    """
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
