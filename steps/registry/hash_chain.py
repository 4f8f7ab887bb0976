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
from collections.abc import Sequence
from dataclasses import dataclass

from steps.registry.entry import LOST, Entry

# entries named one by one; more of them, such as those written before there was a chain, are joined
# under one digest
MOST_NAMED = 8
KEY = re.compile(r"([0-9]{1,9})(?:-([0-9]{1,9}))?")  # one entry, or all in a range


@dataclass(frozen=True)
class Fault:
    """What is wrong with an entry."""

    words: str
    altered: bool  # this entry itself is there, and is not what it was


def tips(entries: Sequence[Entry]) -> dict[str, str]:
    """Number to digest of the entries that no other names; of many, one over a range."""
    named = [_numbers(key) for entry in entries for key in entry.record.previous]
    alone, ranges = (
        {numbers[0] for numbers in named if len(numbers) == 1},
        [numbers for numbers in named if len(numbers) > 1],
    )
    ordered = sorted(entries, key=lambda entry: entry.number)
    free = [
        entry
        for entry in ordered
        if entry.number not in alone and not any(entry.number in numbers for numbers in ranges)
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
    faults: dict[int, Fault] = {}
    told: set[int] = set()
    for entry in sorted(entries, key=lambda entry: entry.number):
        for key, digest in entry.record.previous.items():
            numbers = _numbers(key)
            if not numbers or numbers[-1] >= entry.number:
                faults.setdefault(
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
                    faults[number] = Fault(
                        f"entry {number} was removed: entry {entry.number} was written after it",
                        False,
                    )
                elif there[number].digest != digest:
                    faults[number] = Fault(
                        f"entry {number} was altered after entry {entry.number} was written", True
                    )
            elif _joined(entries, numbers) != digest:
                words = (
                    f"entries {key} are not what entry {entry.number} found: at least one was"
                    " altered or removed"
                )
                faults.setdefault(entry.number, Fault(words, False))
    for entry in entries:
        if (
            entry.settled == LOST
            and entry.number not in faults
            and (by := _relied_on(entry, entries))
        ):
            words = f"entry {entry.number} is marked as lost, though entry {by} went on from it"
            faults[entry.number] = Fault(words, True)
    return faults


def _relied_on(entry: Entry, entries: Sequence[Entry]) -> int | None:
    """Number of the later entry that found an alias where this one, and no earlier, had put it."""
    for move in entry.record.moves:
        others = [
            (one.number, other)
            for one in entries
            if one.number != entry.number and one.settled != LOST
            for other in one.record.moves
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
    """Entries that a key of ``previous`` stands for: a number or a range; none for other keys."""
    match = KEY.fullmatch(key)
    return range(int(match[1]), int(match[2] or match[1]) + 1) if match else range(0)


def _joined(entries: Sequence[Entry], numbers: range) -> str:
    """One digest over those of all entries in a range, in their order."""
    whole = hashlib.sha256()
    for entry in sorted(entries, key=lambda entry: entry.number):
        if entry.number in numbers:
            whole.update(f"{entry.number} {entry.digest}\n".encode())
    return "sha256:" + whole.hexdigest()
