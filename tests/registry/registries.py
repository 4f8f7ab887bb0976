"""Registries with many models in which nothing is left to do, written past MLflow's server, so that they are made in seconds."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from steps.registry import waiting
from steps.registry.gateway import Version
from steps.registry.journal import ID_TAG, KIND_TAG, RECORD_TAG, SETTLED_TAG, Move, Record
from steps.registry.survey import Facts

WHEN = "2026-11-01T00:00:00+00:00"
SOURCE = "runs:/0123456789abcdef0123456789abcdef/model"


def settled(uri: str, models: int, entries: int = 1, first: int = 0) -> None:
    """Fill a database: each model has a champion that is a judged candidate, and a journal.

    Args:
        uri: of the database, which has MLflow's schema.
        models: how many.
        entries: of each journal.
        first: number of the first model.
    """
    from mlflow.store.model_registry.sqlalchemy_store import SqlAlchemyStore

    store = SqlAlchemyStore(uri)
    for number in range(first, first + models):
        name = f"model-{number:03}"
        store.create_registered_model(name)
        version = store.create_model_version(name, SOURCE, tags=_tags({}))
        tags = {waiting.VERDICT_TAG: "held: as it is", waiting.JUDGED_TAG: "sha256:1", waiting.WHEN_TAG: WHEN}
        at = int(datetime.fromisoformat(WHEN).timestamp() * 1000)
        known = Version(name, 1, tags, (), SOURCE, None, "", version.creation_timestamp)
        tags[waiting.SEEN_TAG] = waiting.seen(known, Facts(name, {}, {}, (), (), ()), {}, at)
        for tag in _tags(tags):
            store.set_model_version_tag(name, "1", tag)
        for alias in ("champion", "candidate"):
            store.set_registered_model_alias(name, alias, "1")
        store.create_registered_model(f"{name}.history", tags=_model_tags({KIND_TAG: "history"}))
        for entry in range(entries):
            write_entry(store, name, entry)


def write_entry(store: Any, name: str, entry: int, **changes: Any) -> None:
    """Append to a journal: the champion moves to version 1 first, then a challenger is set and taken away, again and again."""
    challenger = Move("challenger", None, 1) if entry % 2 else Move("challenger", 1, None)
    moves = (Move("champion", None, 1) if entry == 0 else challenger,)
    created = datetime.now(UTC).isoformat()
    record = Record(**{"id": f"{name}-{entry}", "kind": "promote", "moves": moves, "actor": "rosa", "reason": f"reason {entry}", **changes})
    tags = {RECORD_TAG: record.to_json().replace('"created":""', f'"created":"{created}"'), ID_TAG: record.id, SETTLED_TAG: "true"}
    store.create_model_version(f"{name}.history", SOURCE, tags=_tags(tags))


def _tags(tags: Mapping[str, str]) -> list[Any]:
    from mlflow.entities.model_registry import ModelVersionTag

    return [ModelVersionTag(key, value) for key, value in tags.items()]


def _model_tags(tags: Mapping[str, str]) -> list[Any]:
    from mlflow.entities.model_registry import RegisteredModelTag

    return [RegisteredModelTag(key, value) for key, value in tags.items()]
