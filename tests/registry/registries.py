"""Registries with many models in which nothing is left to do, written into MLflow's tables at once,
so that they are made in a moment.
"""

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from steps.core import tags
from steps.registry import verdict_memory
from steps.registry.entry import ID_TAG, RECORD_TAG, SETTLED_TAG
from steps.registry.journal import KIND_TAG
from steps.registry.model_version import Version
from steps.registry.record import Move, Record
from steps.registry.survey import Facts

WHEN = "2026-11-01T00:00:00+00:00"
CREATED_MS = 1_793_491_200_000
SOURCE = "runs:/0123456789abcdef0123456789abcdef/model"


def settled(uri: str, models: int, entries: int = 1, first: int = 0) -> None:
    """Fill a database: each model has a champion that is a judged candidate, and a journal.

    Args:
        uri: of the database, which has MLflow's schema.
        models: how many.
        entries: of each journal.
        first: number of the first model.
    """
    from mlflow.store.model_registry.dbmodels.models import (
        SqlRegisteredModel,
        SqlRegisteredModelAlias,
        SqlRegisteredModelTag,
    )

    rows: list[Any] = []
    for number in range(first, first + models):
        name = f"model-{number:03}"
        history = f"{name}.history"
        rows += [
            SqlRegisteredModel(name=each, creation_time=CREATED_MS) for each in (name, history)
        ]
        rows.append(SqlRegisteredModelTag(name=history, key=KIND_TAG, value="history"))
        rows.append(SqlRegisteredModelTag(name=name, key=tags.HISTORY, value=str(CREATED_MS)))
        rows += _version(name, 1, _judged(name))
        rows += [
            SqlRegisteredModelAlias(name=name, alias=alias, version=1)
            for alias in ("champion", "candidate")
        ]
        for entry in range(entries):
            rows += _entry(name, entry)
    _store(uri, rows)


def write_entry(uri: str, name: str, entry: int, **changes: Any) -> None:
    """Append to a journal."""
    _store(uri, _entry(name, entry, **changes))


def experiments(uri: str, number: int, created_ms: int) -> None:
    """Many experiments, as one user makes them in a loop; newer than all others, so that a search
    gives them first.
    """
    from mlflow.store.tracking.dbmodels.models import SqlExperiment

    row = {
        "artifact_location": "/nowhere",
        "lifecycle_stage": "active",
        "creation_time": created_ms,
        "last_update_time": created_ms,
    }
    _store(uri, [SqlExperiment(name=f"mine-{each}", **row) for each in range(number)])


def _judged(name: str) -> dict[str, str]:
    tags = {
        verdict_memory.CANDIDATE_TAG: "held: as it is",
        verdict_memory.JUDGED_TAG: "sha256:1",
        verdict_memory.WHEN_TAG: WHEN,
    }
    at = int(datetime.fromisoformat(WHEN).timestamp() * 1000)
    known = Version(name, 1, tags, (), SOURCE, None, "", CREATED_MS)
    return {
        **tags,
        verdict_memory.SEEN_TAG: verdict_memory.seen(
            known, Facts(name, {}, {}, (), (), ()), {}, at
        ),
    }


def _entry(name: str, entry: int, **changes: Any) -> list[Any]:
    """The champion moves to version 1 first; then a challenger is set and taken away, again and
    again.
    """
    challenger = Move("challenger", None, 1) if entry % 2 else Move("challenger", 1, None)
    moves = (Move("champion", None, 1) if entry == 0 else challenger,)
    record = Record(
        **{
            "id": f"{name}-{entry}",
            "kind": "promote",
            "moves": moves,
            "actor": "rosa",
            "reason": f"reason {entry}",
            **changes,
        }
    )
    text = json.dumps({**json.loads(record.to_json()), "created": datetime.now(UTC).isoformat()})
    return _version(
        f"{name}.history", entry + 1, {RECORD_TAG: text, ID_TAG: record.id, SETTLED_TAG: "true"}
    )


def _version(name: str, number: int, tags: Mapping[str, str]) -> list[Any]:
    from mlflow.store.model_registry.dbmodels.models import SqlModelVersion, SqlModelVersionTag

    made = SqlModelVersion(
        name=name,
        version=number,
        creation_time=CREATED_MS,
        last_updated_time=CREATED_MS,
        source=SOURCE,
    )
    return [
        made,
        *(
            SqlModelVersionTag(name=name, version=number, key=key, value=value)
            for key, value in tags.items()
        ),
    ]


def _store(uri: str, rows: list[Any]) -> None:
    from sqlalchemy import create_engine
    from sqlalchemy.orm import Session

    engine = create_engine(uri)
    with Session(engine) as session:
        session.add_all(rows)
        session.commit()
    engine.dispose()
