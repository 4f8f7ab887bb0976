"""Moves of aliases: compare with the journal, write the intent, see who won, settle."""

from __future__ import annotations

from dataclasses import replace

from steps.core.errors import StepError
from steps.registry.entry import LOST, SETTLED, Entry
from steps.registry.journal import Journal
from steps.registry.journal_store import JournalStore
from steps.registry.projection import align, reconcile
from steps.registry.record import Record


class LostRaceError(StepError):
    """Another promoter moved the alias first."""


class AliasStore(JournalStore):
    """The aliases of one registered model, moved by entries of its history."""

    def open(self) -> Journal:
        """Finish what an interrupted run left, take note of moves made past this project, and
        return the state to decide on.

        Raises:
            DamagedRecordError: as :meth:`read`.
            ForeignHistoryError, RenamedModelError: as :meth:`check`.
        """
        self.claim()
        return reconcile(self)

    def peek(self) -> Journal:
        """The state to decide on, without writing anything: for dry runs and for showing."""
        self.check()
        return replace(self.read(), aliases=self.aliases())

    def commit(self, seen: Journal, record: Record) -> Entry | None:
        """Make a record's moves, all or none.

        Args:
            seen: what the decision was made on; each move's ``before`` comes from there.
            record: the change.

        Returns:
            The entry in the journal; None where there was nothing to move.

        Raises:
            LostRaceError: another entry or another client moved one of the aliases since ``seen``.
                Nothing was changed.
            StepError: a version that an alias is to move to is gone.
        """
        moves = tuple(move for move in record.moves if move.before != move.after)
        if not moves:
            return None
        for move in moves:
            if seen.aliases.get(move.alias) != move.before:
                raise ValueError(
                    f"{move.alias}: the decision saw {seen.aliases.get(move.alias)}, the move says"
                    f" {move.before}"
                )
        known = self.versions()
        if gone := sorted({move.after for move in moves if move.after is not None} - {*known}):
            raise StepError(
                f"models:/{self.name}: version {gone[0]} was deleted, so no alias can move to it;"
                " nothing was changed"
            )
        actual = self.aliases()
        if moved := [move.alias for move in moves if actual.get(move.alias) != move.before]:
            # another client's move is written down before anything is decided again
            state = reconcile(self)
            raise LostRaceError(self._lost(state, state.last_move.get(moved[0])))
        entry = self.append(self.complete(replace(record, moves=moves), seen, known))
        state = self.read()
        # the winner's entry may have been deleted just now
        if not entry.holds or (entry.doubtful and state.holes != seen.holes):
            self.mark(entry, LOST)
            raise LostRaceError(self._lost(state, entry.lost_to))
        align(self, [move.alias for move in entry.record.moves])
        self.mark(entry, SETTLED)
        return entry

    def note(self, record: Record) -> Entry:
        """Write an entry that moves no alias, about the version ``details["version"]``."""
        entry = self.append(self.complete(replace(record, moves=()), self.read(), {}))
        self.mark(entry, SETTLED)
        return entry

    def _lost(self, state: Journal, to: int | None) -> str:
        winner = next((entry for entry in state.entries if entry.number == to), None)
        if winner is None:
            return (
                f"{self.name!r}: the aliases are not where this run found them; nothing was"
                " changed: run it again"
            )
        moves = ", ".join(
            f"{move.alias} {move.before or 'nothing'} → {move.after or 'nothing'}"
            for move in winner.record.moves
        )
        return (
            f"{self.name!r}: refused, since entry {winner.number} of {self.history!r} came first"
            f" ({moves}, {winner.record.kind} by {winner.record.who}: {winner.record.reason});"
            " nothing was changed: look at its result and run this again if it still holds"
        )
