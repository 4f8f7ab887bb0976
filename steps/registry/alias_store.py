"""Moves of aliases: compare with the journal, write the intent, see who won, bring the aliases in
line, settle.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from steps.config import names
from steps.core.errors import StepError
from steps.registry import belonging, chain, journal
from steps.registry.aliases import CANDIDATE, DIGEST_TAG, VARIANTS
from steps.registry.client import RegistryClient, Version
from steps.registry.journal import (
    ID_TAG,
    OBSERVED,
    PROJECTION_TAG,
    RECORD_TAG,
    SETTLED_TAG,
    Entry,
    Journal,
    Move,
    Record,
)

log = logging.getLogger(__name__)

# projections in a row that may each find a newer entry; more means that something writes without
# end
ROUNDS = 50
SETTLED = "true"  # its writer saw its moves in the aliases, and writes no more
# another run brought the aliases in line; the writer itself may still be alive, and late
FINISHED = "finished"
# after this, an alias that differs was moved by somebody and not by a request that was under way
LATE_WRITE_SECONDS = 3600.0
HISTORY_DESCRIPTION = (
    "Every change of the aliases of `{name}`, oldest first: one version is one change. Written by"
    " slm-promote; do not delete versions. `mlflow run . -e history -P target=models:/{name}` shows"
    " it as a table."
)


class LostRaceError(StepError):
    """Another promoter moved the alias first."""


@dataclass(frozen=True)
class View:
    """The journal as a decision saw it."""

    journal: Journal

    @property
    def aliases(self) -> dict[str, int]:
        return dict(self.journal.aliases)


class AliasStore:
    """The aliases of one registered model.

    Args:
        registry: the calls to the tracking server.
        name: the registered model.

    Raises:
        StepError: the name is kept for what belongs to another registered model.
    """

    def __init__(self, registry: RegistryClient, name: str) -> None:
        if names.reserved(name):
            owner, _, word = name.rpartition(".")
            raise StepError(
                f"models:/{name}: {name!r} is kept for the {word} of {owner!r}; name a registered"
                f" model: models:/{owner}"
            )
        self.registry, self.name = registry, name
        self.history = journal.name_of(name)
        self._created_ms: int | None = None
        self._claimed = False  # looked at, and known as this model's

    @property
    def incarnation(self) -> int | None:
        """Creation time of the registered model, ms since 1970: its entries are known by that; None
        where there is no such model.
        """
        if self._created_ms is None:
            self._created_ms = self.registry.created_ms(self.name)
        return self._created_ms

    def read(self) -> Journal:
        """The journal as it stands; empty where there is none yet.

        Raises:
            DamagedRecordError: an entry cannot be read; names it and what mends it.
        """
        entries = [journal.entry_of(version) for version in self.registry.versions(self.history)]
        return journal.fold([entry for entry in entries if entry is not None], self.incarnation)

    def check(self) -> None:
        """Refuse to go by a history that is another's, or without the one that the model had under
        another name.

        Raises:
            ForeignHistoryError, RenamedModelError: as :func:`steps.registry.belonging.check`.
        """
        if not self._claimed:
            belonging.check(self.registry, self.name)

    def claim(self) -> None:
        """Create the history unless it is there, and make it known as the model's own: before the
        first version is registered.

        Raises:
            ForeignHistoryError, RenamedModelError: as :meth:`check`.
        """
        if not self._claimed:
            belonging.claim(self.registry, self.name, HISTORY_DESCRIPTION.format(name=self.name))
        self._claimed = True

    def open(self) -> View:
        """Finish what an interrupted run left, take note of moves made past this project, and
        return the state to decide on.

        Raises:
            DamagedRecordError: as :meth:`read`.
            ForeignHistoryError, RenamedModelError: as :meth:`check`.
        """
        self.claim()
        return View(self._reconcile())

    def peek(self) -> View:
        """The state to decide on, without writing anything: for dry runs and for showing."""
        self.check()
        return View(replace(self.read(), aliases=self._actual()))

    def commit(self, view: View, record: Record) -> Entry | None:
        """Make a record's moves, all or none.

        Args:
            view: what the decision was made on; each move's ``before`` comes from there.
            record: the change.

        Returns:
            The entry in the journal; None where there was nothing to move.

        Raises:
            LostRaceError: another entry or another client moved one of the aliases since ``view``.
                Nothing was changed.
            StepError: a version that an alias is to move to is gone.
        """
        moves = tuple(move for move in record.moves if move.before != move.after)
        if not moves:
            return None
        for move in moves:
            if view.journal.aliases.get(move.alias) != move.before:
                raise ValueError(
                    f"{move.alias}: the decision saw {view.journal.aliases.get(move.alias)}, the"
                    f" move says {move.before}"
                )
        known = {version.number: version for version in self.registry.versions(self.name)}
        if gone := sorted({move.after for move in moves if move.after is not None} - {*known}):
            raise StepError(
                f"models:/{self.name}: version {gone[0]} was deleted, so no alias can move to it;"
                " nothing was changed"
            )
        actual = self._actual()
        if moved := [move.alias for move in moves if actual.get(move.alias) != move.before]:
            # a person's move is written down before anybody decides again
            state = self._reconcile()
            raise LostRaceError(self._lost(state, state.last_move.get(moved[0])))
        entry = self._append(self._complete(replace(record, moves=moves), view.journal, known))
        state = self.read()
        # the winner's entry may have been deleted just now
        if not entry.holds or (entry.doubtful and state.holes != view.journal.holes):
            self.registry.set_version_tag(self.history, entry.number, SETTLED_TAG, chain.LOST)
            raise LostRaceError(self._lost(state, entry.lost_to))
        self._align([move.alias for move in entry.record.moves])
        self.registry.set_version_tag(self.history, entry.number, SETTLED_TAG, SETTLED)
        return entry

    def note(self, record: Record) -> Entry:
        """Write down what moves no alias, such as an approval; ``details["version"]`` is the
        version that it is about.
        """
        entry = self._append(self._complete(replace(record, moves=()), self.read(), {}))
        self.registry.set_version_tag(self.history, entry.number, SETTLED_TAG, SETTLED)
        return entry

    def _actual(self) -> dict[str, int]:
        """The aliases as they are, without the one by which people ask for a version to be looked
        at.
        """
        found = self.registry.aliases(self.name) or {}
        return {alias: version for alias, version in found.items() if alias != CANDIDATE}

    # --- the steps of a move

    def _complete(self, record: Record, seen: Journal, known: Mapping[int, Version]) -> Record:
        """A record with what ties it to its place: time, registered model, the versions' logged
        models and bytes, the entries before.
        """
        moved = {number for move in record.moves for number in (move.before, move.after)}
        identities = {
            str(number): {"model_id": version.model_id, "digest": version.tags.get(DIGEST_TAG)}
            for number, version in known.items()
            if number in moved
        }
        return replace(
            record,
            created=datetime.now(UTC).isoformat(timespec="milliseconds"),
            incarnation=str(self.incarnation or ""),
            identities={**identities, **record.identities},
            previous=seen.tips(),
        )

    def _append(self, record: Record) -> Entry:
        self.registry.create_version(
            self.history,
            f"models:/{self.name}/{self._subject(record)}",
            {RECORD_TAG: record.to_json(), ID_TAG: record.id},
            journal.sentence(record),
            landed=lambda version: version.tags.get(ID_TAG) == record.id,
        )
        entry = self.read().find(record.id)
        if entry is None:
            raise StepError(
                f"history of {self.name!r}: the entry just written is not there; was it deleted in"
                " this moment?"
            )
        return entry

    def _subject(self, record: Record) -> int:
        """The version that an entry points at: the one that it puts into service, or else one that
        is there.
        """
        main = sorted(
            record.moves,
            key=lambda move: (
                move.alias in VARIANTS or move.alias.startswith(("previous", "challenger"))
            ),
        )
        known = [version.number for version in self.registry.versions(self.name)]
        wished = [
            number for move in main for number in (move.after, move.before) if number in known
        ]
        if not known:
            raise StepError(
                f"models:/{self.name} has no version, so no alias can move; register one: `mlflow"
                " run . -e register`"
            )
        return (
            wished
            or [number for number in known if number == record.details.get("version")]
            or known
        )[0]

    def _align(self, touched: Sequence[str]) -> None:
        """Bring aliases in line with the journal until a look at both, after the last write, finds
        no difference.

        If a newer entry appeared meanwhile, its writer may have set the alias before this one did;
        so this one sets it again, to what the newer entry says.
        """
        for _ in range(ROUNDS):
            if not self._project(self.read(), touched):
                return
        raise StepError(
            f"aliases of {self.name!r} kept changing for {ROUNDS} rounds; who else writes them? see"
            " `mlflow run . -e history`"
        )

    @contextmanager
    def _projection(self, entry: Entry) -> Iterator[None]:
        """Say on an entry that this run is about to write aliases on its behalf, and when it is
        done.

        The mark stays open when this process dies in here; it is never removed, so that whoever
        compares two looks sees who came and went.
        """
        key = PROJECTION_TAG + journal.new_id()[:12]
        self.registry.set_version_tag(
            self.history, entry.number, key, f"open {time.time() * 1000:.0f}"
        )
        yield
        self.registry.set_version_tag(self.history, entry.number, key, "done")

    def _project(self, state: Journal, touched: Sequence[str]) -> bool:
        """Set what differs among ``touched``. Returns whether anything did."""
        actual = self.registry.aliases(self.name) or {}
        if all(actual.get(alias) == state.aliases.get(alias) for alias in touched):
            return False
        known = {version.number for version in self.registry.versions(self.name)}
        wrong = [
            alias
            for alias in touched
            if actual.get(alias) != state.aliases.get(alias)
            and state.aliases.get(alias) in {*known, None}
        ]
        # one whose version was deleted cannot be set, and stays as it is until somebody takes note
        # of it
        for alias in wrong:
            wanted = state.aliases.get(alias)
            if wanted is None:
                self.registry.delete_alias(self.name, alias)
            else:
                self.registry.set_alias(self.name, alias, wanted)
        return bool(wrong)

    def _reconcile(self) -> Journal:
        for _ in range(ROUNDS):
            state = self.read()
            for entry in state.entries:
                if (
                    entry.holds
                    and not entry.settled
                    and not entry.doubtful
                    and self._is_last(state, entry)
                ):
                    log.info(
                        "finishing entry %d of %s, which an earlier run left",
                        entry.number,
                        self.history,
                    )
                    with self._projection(entry):
                        self._align([move.alias for move in entry.record.moves])
                        self.registry.set_version_tag(
                            self.history, entry.number, SETTLED_TAG, FINISHED
                        )
            actual = self._actual()
            differing = sorted(
                alias
                for alias in {*actual, *state.aliases}
                if actual.get(alias) != state.aliases.get(alias)
            )
            if not differing:
                return state
            if self.read().entries != state.entries:
                continue  # somebody is moving right now; look again
            known = {version.number: version for version in self.registry.versions(self.name)}
            # no version, so no alias; it is written down once there is a version that an entry can
            # point at
            if not known:
                return replace(state, aliases=actual)
            mendable = [alias for alias in differing if state.aliases.get(alias) in {None, *known}]
            late = [
                alias for alias in mendable if self._may_be_late(state, alias, actual.get(alias))
            ]
            if late:
                log.info(
                    "%s of %s was set by a late request; putting it right",
                    ", ".join(late),
                    self.name,
                )
                with self._projection([entry for entry in state.entries if entry.holds][-1]):
                    self._align(late)
            else:
                # no entry and no mark changed since before the aliases were read, and whoever could
                # write has long confirmed
                self._note(state, actual, differing, known)
        raise StepError(
            f"aliases of {self.name!r} kept changing for {ROUNDS} rounds; who else writes them? see"
            " `mlflow run . -e history`"
        )

    def _is_last(self, state: Journal, entry: Entry) -> bool:
        return any(state.last_move.get(move.alias) == entry.number for move in entry.record.moves)

    def _may_be_late(self, state: Journal, alias: str, value: int | None) -> bool:
        """Whether a run that has not said that it is done may have written this value, as the
        journal once said so.
        """
        now = time.time() * 1000
        for entry in state.entries:
            if not entry.holds:
                continue
            opened = [
                float(mark.split()[1]) for mark in entry.projections if mark.startswith("open ")
            ]
            if entry.settled != SETTLED:
                opened.append(float(entry.created_ms))
            alive = any(now - at < LATE_WRITE_SECONDS * 1000 for at in opened)
            if alive and value in journal.values_since(state, alias, entry.number):
                return True
        return False

    def _note(
        self,
        state: Journal,
        actual: dict[str, int],
        differing: Sequence[str],
        known: Mapping[int, Version],
    ) -> None:
        """Write down moves that somebody made with another client, so that the history has no
        hole.
        """
        record = Record(
            id=journal.new_id(),
            kind=OBSERVED,
            moves=tuple(
                Move(alias, state.aliases.get(alias), actual.get(alias)) for alias in differing
            ),
            actor="another client",
            reason="alias found moved outside slm-promote",
        )
        entry = self._append(self._complete(record, state, known))
        self.registry.set_version_tag(self.history, entry.number, SETTLED_TAG, SETTLED)

    def _lost(self, state: Journal, to: int | None) -> str:
        winner = next((each for each in state.entries if each.number == to), None)
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
