"""One entry of a history: a record, its place in the order, and what became of it."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass

from steps.core.errors import StepError
from steps.registry.model_version import Version
from steps.registry.record import Record, as_json

RECORD_TAG = "slm.record"  # the whole record, as JSON
ID_TAG = "slm.record_id"
# one of the three values below
SETTLED_TAG = "slm.settled"
# + a key of its own: another run that brings the aliases in line, while and after it does
PROJECTION_TAG = "slm.projection."
SETTLED = "true"  # its writer saw its moves in the aliases, and writes no more
# another run brought the aliases in line; the writer itself may still be alive, and late
FINISHED = "finished"
# its writer saw that it lost and gave up, so it stays lost, whatever happens to the entry that won
LOST = "lost"


class DamagedRecordError(StepError):
    """An entry of a journal cannot be read."""


@dataclass(frozen=True)
class Entry:
    """A record with its place in the journal and what became of it."""

    number: int
    record: Record
    created_ms: int  # by the server's clock
    settled: str  # value of SETTLED_TAG, or ""
    projections: tuple[str, ...] = ()  # of other runs: "open <ms since 1970>" or "done"
    holds: bool = False
    lost_to: int | None = None  # number of the entry that had moved one of its aliases before
    digest: str = ""  # sha256:… over the record's canonical JSON
    # of an earlier registered model of this name, deleted since: its version numbers do not count
    earlier: bool = False
    altered: bool = False  # a later entry knows it by another digest
    # it holds by its own word alone: a deleted entry may have moved one of its aliases before
    doubtful: bool = False


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
