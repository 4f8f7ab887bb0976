"""The entries of a history on the tracking server: read, appended and marked."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from time import time

from steps.config import names
from steps.core import tags
from steps.core.errors import StepError
from steps.registry import belonging, journal
from steps.registry.aliases import CANDIDATE, VARIANTS
from steps.registry.client import RegistryClient
from steps.registry.entry import ID_TAG, PROJECTION_TAG, RECORD_TAG, SETTLED_TAG, Entry, entry_of
from steps.registry.journal import Journal
from steps.registry.model_version import Version
from steps.registry.record import Record, new_id, sentence

HISTORY_DESCRIPTION = (
    "Every change of the aliases of `{name}`, oldest first: one version is one change. Written by"
    " slm-promote; do not delete versions. `mlflow run . -e history --env-manager local -P"
    " target=models:/{name}` shows it as a table."
)


class JournalStore:
    """The history of one registered model.

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
        self._claimed = False  # checked, and known as this model's

    @property
    def incarnation(self) -> int | None:
        """Creation time of the registered model, ms since 1970; None where there is none."""
        if self._created_ms is None:
            self._created_ms = self.registry.created_ms(self.name)
        return self._created_ms

    def read(self) -> Journal:
        """The journal as it stands; empty where there is none yet.

        Raises:
            DamagedRecordError: an entry cannot be read; names it and what mends it.
        """
        entries = [entry_of(version) for version in self.registry.versions(self.history)]
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

    def aliases(self) -> dict[str, int]:
        """The aliases as they are, but for the one by which people ask `watch` for a decision."""
        aliases = self.registry.aliases(self.name) or {}
        return {alias: number for alias, number in aliases.items() if alias != CANDIDATE}

    def versions(self) -> dict[int, Version]:
        """The versions of the registered model by number."""
        return {version.number: version for version in self.registry.versions(self.name)}

    def complete(self, record: Record, seen: Journal, known: Mapping[int, Version]) -> Record:
        """A record with what ties it to its place: time, registered model, the versions' logged
        models and bytes, the entries before.

        Args:
            record: the change.
            seen: the journal that it was decided on.
            known: versions by number.
        """
        moved = {number for move in record.moves for number in (move.before, move.after)}
        identities = {
            str(number): {"model_id": version.model_id, "digest": version.tags.get(tags.DIGEST)}
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

    def append(self, record: Record) -> Entry:
        """Write an entry, and read what became of it."""
        self.registry.create_version(
            self.history,
            f"models:/{self.name}/{self._pointed_at(record)}",
            {RECORD_TAG: record.to_json(), ID_TAG: record.id},
            sentence(record),
            landed=lambda version: version.tags.get(ID_TAG) == record.id,
        )
        entry = self.read().find(record.id)
        if entry is None:
            raise StepError(
                f"history of {self.name!r}: the entry just written is not there; was it deleted in"
                " this moment?"
            )
        return entry

    def mark(self, entry: Entry, value: str) -> None:
        """Say on an entry what became of it: ``true``, ``finished`` or ``lost``."""
        self.registry.set_version_tag(self.history, entry.number, SETTLED_TAG, value)

    @contextmanager
    def projecting(self, entry: Entry) -> Iterator[None]:
        """Say on an entry that this run is about to write aliases on its behalf, and when it is
        done.

        The mark stays open when this process dies in here; it is never removed, so that whoever
        compares two readings sees who came and went.
        """
        key = PROJECTION_TAG + new_id()[:12]
        self.registry.set_version_tag(self.history, entry.number, key, f"open {time() * 1000:.0f}")
        yield
        self.registry.set_version_tag(self.history, entry.number, key, "done")

    def _pointed_at(self, record: Record) -> int:
        """The version that an entry points at: the one that it puts into service, or any."""
        known = list(self.versions())
        if not known:
            raise StepError(
                f"models:/{self.name} has no version, so no alias can move; register one: `mlflow"
                " run . -e register`"
            )
        main_first = sorted(
            record.moves,
            key=lambda move: (
                move.alias in VARIANTS or move.alias.startswith(("previous", "challenger"))
            ),
        )
        wished = [number for move in main_first for number in (move.after, move.before)]
        wished.append(record.details.get("version"))
        return next((number for number in wished if number in known), known[0])
