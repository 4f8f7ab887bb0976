"""The history of a registered model's aliases: an append-only journal that decides who won.

MLflow's alias is a register that the last writer wins, without a condition and without a past. What
MLflow does have is one operation that its database makes unique: creating a model version, where
(name, number) is a primary key, numbers are handed out in the order in which they become visible,
and none is used twice. So each change of aliases is one *version* of a second registered model,
``<name>.history``: writing it is the intent, its number is its place in the order, and folding all
records in that order tells, to everybody alike, which of two racing moves holds and what the
aliases must be. The aliases themselves are a projection of the journal that anyone may finish. See
docs/promotion-protocol.md.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from steps.registry import hash_chain
from steps.registry.entry import LOST, Entry

SUFFIX = ".history"
KIND_TAG = "slm.kind"  # on the registered model that is a journal


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
        return hash_chain.tips(self.entries)

    def mistaken(self, number: int, model_id: str | None, digest: str | None) -> str:
        """How a version differs from the one that an alias was moved to, in words, if it does."""
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

    def unfinished(self) -> list[Entry]:
        """Entries that are the last of an alias and that no run has seen in the aliases."""
        last = {*self.last_move.values()}
        return [
            entry
            for entry in self.entries
            if entry.holds and not entry.settled and not entry.doubtful and entry.number in last
        ]

    def find(self, record_id: str) -> Entry | None:
        return next((entry for entry in self.entries if entry.record.id == record_id), None)

    def served(self) -> set[int]:
        """Versions that any alias ever pointed at."""
        moves = [move for entry in self.entries if entry.holds for move in entry.record.moves]
        return {
            number for move in moves for number in (move.before, move.after) if number is not None
        }

    def held(self, alias: str) -> list[int]:
        """Versions that an alias pointed at, oldest first; altered entries do not count."""
        numbers: list[int] = []
        for entry in self.entries:
            for move in entry.record.moves:
                if entry.holds and not entry.altered and move.alias == alias:
                    if move.before is not None and not numbers:
                        numbers.append(move.before)
                    if move.after is not None:
                        numbers.append(move.after)
        return numbers


def values_since(journal: Journal, alias: str, number: int) -> set[int | None]:
    """Values of an alias from an entry on: what a run that has read that far may write."""
    value: int | None = None
    values: set[int | None] = set()
    for entry in journal.entries:
        for move in entry.record.moves if entry.holds else ():
            if move.alias == alias:
                value = move.after
        if entry.number >= number:
            values.add(value)
    return values


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
    faults = hash_chain.verify(entries)
    for entry in sorted(entries, key=lambda entry: entry.number):
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
        if wrong or entry.settled == LOST:
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
