"""Entries of a journal, chained by digest: each holds the digests of the newest ones that its
writer saw.

Two writers may append at the same moment without knowing of each other, so the chain branches and
joins like commits do: an entry names every entry that no earlier one has named. What stands in a
named entry, its own ``previous`` included, cannot be changed without being seen, unless all entries
after it are rewritten as well.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

# entries named one by one; more of them, such as those written before there was a chain, are joined
# under one digest
MOST_NAMED = 8
# value of an entry's tag: its writer saw that it lost and gave up, so it stays lost, whatever
# happens to the entry that won
LOST = "lost"
KEY = re.compile(r"([0-9]{1,9})(?:-([0-9]{1,9}))?")  # one entry, or all in a range


class Move(Protocol):
    """What a chain reads of a move of an alias."""

    @property
    def alias(self) -> str: ...
    @property
    def before(self) -> int | None: ...
    @property
    def after(self) -> int | None: ...


class Record(Protocol):
    """What a chain reads of a record."""

    @property
    def moves(self) -> Sequence[Move]: ...
    @property
    def previous(self) -> Mapping[str, str]: ...


class Entry(Protocol):
    """What a chain reads of an entry of the journal."""

    @property
    def number(self) -> int: ...
    @property
    def digest(self) -> str: ...
    @property
    def settled(self) -> str: ...
    @property
    def record(self) -> Record: ...


@dataclass(frozen=True)
class Fault:
    """What is wrong with an entry."""

    words: str
    altered: bool  # this entry itself is there, and is not what it was


def tips(entries: Sequence[Entry]) -> dict[str, str]:
    """Number to digest of the entries that no other names: ``{"17": "sha256:…"}``, or ``{"1-483":
    …}`` over all in a range.
    """
    named = [_numbers(key) for entry in entries for key in entry.record.previous]
    alone, ranges = (
        {each[0] for each in named if len(each) == 1},
        [each for each in named if len(each) > 1],
    )
    ordered = sorted(entries, key=lambda each: each.number)
    free = [
        entry
        for entry in ordered
        if entry.number not in alone and not any(entry.number in each for each in ranges)
    ]
    if len(free) <= MOST_NAMED:
        return {str(entry.number): entry.digest for entry in free}
    first, last = free[0].number, free[-1].number
    return {f"{first}-{last}": _joined(entries, range(first, last + 1))}


def verify(entries: Sequence[Entry]) -> dict[int, Fault]:
    """Number of each entry that is not what a later one says, with what is wrong.

    Where several later ones name an entry, the first of them is believed: it was written before
    whoever would put others in doubt. A number that is not below the entry's own is wrong in that
    entry.
    """
    there = {entry.number: entry for entry in entries}
    found: dict[int, Fault] = {}
    told: set[int] = set()
    for entry in sorted(entries, key=lambda each: each.number):
        for key, digest in entry.record.previous.items():
            numbers = _numbers(key)
            if not numbers or numbers[-1] >= entry.number:
                found.setdefault(
                    entry.number,
                    Fault(
                        f"entry {entry.number} names entries {key}, which are not before it", True
                    ),
                )
            elif len(numbers) == 1:
                number = numbers[0]
                if number in told:
                    continue
                told.add(number)
                if number not in there:
                    found[number] = Fault(
                        f"entry {number} was removed: entry {entry.number} was written after it",
                        False,
                    )
                elif there[number].digest != digest:
                    found[number] = Fault(
                        f"entry {number} was altered after entry {entry.number} was written", True
                    )
            elif _joined(entries, numbers) != digest:
                words = (
                    f"entries {key} are not what entry {entry.number} found: at least one was"
                    " altered or removed"
                )
                found.setdefault(entry.number, Fault(words, False))
    for entry in entries:
        if (
            entry.settled == LOST
            and entry.number not in found
            and (by := _relied_on(entry, entries))
        ):
            words = f"entry {entry.number} is marked as lost, though entry {by} went on from it"
            found[entry.number] = Fault(words, True)
    return found


def _relied_on(entry: Entry, entries: Sequence[Entry]) -> int | None:
    """Number of a later entry that found an alias where this one had put it, and before that
    nobody else had.
    """
    for move in entry.record.moves:
        others = [
            (each.number, other)
            for each in entries
            if each.number != entry.number and each.settled != LOST
            for other in each.record.moves
            if other.alias == move.alias
        ]
        earlier = max(
            (at for at in others if at[0] < entry.number), default=None, key=lambda at: at[0]
        )
        later = min(
            (at for at in others if at[0] > entry.number), default=None, key=lambda at: at[0]
        )
        if later is None or later[1].before != move.after or move.after == move.before:
            continue
        if earlier is None or earlier[1].after != move.after:
            return later[0]
    return None


def _numbers(key: str) -> range:
    """Entries that a key of ``previous`` stands for; none for a key that is neither a number nor a
    range.
    """
    found = KEY.fullmatch(key)
    return range(int(found[1]), int(found[2] or found[1]) + 1) if found else range(0)


def _joined(entries: Sequence[Entry], numbers: range) -> str:
    """One digest over those of all entries in a range, in their order."""
    whole = hashlib.sha256()
    for entry in sorted(entries, key=lambda each: each.number):
        if entry.number in numbers:
            whole.update(f"{entry.number} {entry.digest}\n".encode())
    return "sha256:" + whole.hexdigest()
