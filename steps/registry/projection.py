"""Bring aliases in line with the journal, and take note of what other clients moved."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from time import time

from steps.core.errors import StepError
from steps.registry import journal
from steps.registry.entry import FINISHED, SETTLED, Entry
from steps.registry.journal import Journal
from steps.registry.journal_store import JournalStore
from steps.registry.record import OBSERVED, Move, Record, new_id

log = logging.getLogger(__name__)

# projections in a row that may each find a newer entry; more means that something writes without
# end
ROUNDS = 50
# after this, an alias that differs was moved by somebody and not by a request that was under way
LATE_WRITE_SECONDS = 3600.0


def align(store: JournalStore, aliases: Sequence[str]) -> None:
    """Bring aliases in line with the journal until a reading of both, after the last write, shows
    no difference.

    If a newer entry appeared meanwhile, its writer may have set the alias before this one did; so
    this one sets it again, to what the newer entry says.

    Raises:
        StepError: the aliases kept changing.
    """
    for _ in range(ROUNDS):
        if not _project(store, store.read(), aliases):
            return
    raise _unstable(store)


def reconcile(store: JournalStore) -> Journal:
    """The journal, once the aliases agree with it.

    Raises:
        StepError: the aliases kept changing.
    """
    for _ in range(ROUNDS):
        state = store.read()
        for entry in state.unfinished():
            log.info(
                "finishing entry %d of %s, which an earlier run left", entry.number, store.history
            )
            with store.projecting(entry):
                align(store, [move.alias for move in entry.record.moves])
                store.mark(entry, FINISHED)
        actual = store.aliases()
        differing = sorted(
            alias
            for alias in {*actual, *state.aliases}
            if actual.get(alias) != state.aliases.get(alias)
        )
        if not differing:
            return state
        if store.read().entries != state.entries:
            continue  # somebody is moving right now; read again
        known = store.versions()
        # no version, so no alias; it is written down once there is a version that an entry can
        # point at
        if not known:
            return replace(state, aliases=actual)
        mendable = [alias for alias in differing if state.aliases.get(alias) in {None, *known}]
        late = [alias for alias in mendable if _may_be_late(state, alias, actual.get(alias))]
        if late:
            log.info(
                "%s of %s was set by a late request; putting it right", ", ".join(late), store.name
            )
            with store.projecting([entry for entry in state.entries if entry.holds][-1]):
                align(store, late)
        else:
            # no entry and no mark changed since before the aliases were read, and whoever could
            # write has long confirmed
            moves = (
                Move(alias, state.aliases.get(alias), actual.get(alias)) for alias in differing
            )
            observed = Record(
                id=new_id(),
                kind=OBSERVED,
                moves=tuple(moves),
                actor="another client",
                reason="alias found moved outside slm-promote",
            )
            entry = store.append(store.complete(observed, state, known))
            store.mark(entry, SETTLED)
    raise _unstable(store)


def _project(store: JournalStore, state: Journal, aliases: Sequence[str]) -> bool:
    """Set those of the aliases that differ. Returns whether any did."""
    actual = store.registry.aliases(store.name) or {}
    wrong = [alias for alias in aliases if actual.get(alias) != state.aliases.get(alias)]
    if not wrong:
        return False
    # one whose version was deleted cannot be set, and stays as it is until somebody takes note
    # of it
    settable = {*store.versions(), None}
    wrong = [alias for alias in wrong if state.aliases.get(alias) in settable]
    for alias in wrong:
        wanted = state.aliases.get(alias)
        if wanted is None:
            store.registry.delete_alias(store.name, alias)
        else:
            store.registry.set_alias(store.name, alias, wanted)
    return bool(wrong)


def _may_be_late(state: Journal, alias: str, value: int | None) -> bool:
    """Whether a run that is not done may have written this value, which the journal once said."""
    return any(
        value in journal.values_since(state, alias, entry.number)
        for entry in state.entries
        if entry.holds and _may_be_written_for(entry)
    )


def _may_be_written_for(entry: Entry) -> bool:
    opened = [float(mark.split()[1]) for mark in entry.projections if mark.startswith("open ")]
    if entry.settled != SETTLED:
        opened.append(float(entry.created_ms))
    return any(time() * 1000 - at < LATE_WRITE_SECONDS * 1000 for at in opened)


def _unstable(store: JournalStore) -> StepError:
    return StepError(
        f"aliases of {store.name!r} kept changing for {ROUNDS} rounds; who else writes them? see"
        " `mlflow run . -e history --env-manager local`"
    )
