"""Which history belongs to a registered model: the one that the model's own tag names by its creation time.

Every user may create a registered model of a free name, ``<name>.history`` among them, and would then decide what stands in it. Whoever
may edit ``<name>`` may move its aliases anyway, so the tag is theirs to write: it is set before the first entry, and a history that it
does not name is not believed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from steps.config import names
from steps.pipeline import filters
from steps.pipeline.errors import StepError
from steps.registry import journal
from steps.registry.aliases import EVALUATION_TAG, HISTORY_TAG, ORIGIN_TAG
from steps.registry.gateway import Gateway, Version

PENDING = "pending"  # value of the tag while the history is being created, where there was none


class ForeignHistoryError(StepError):
    """There is a history of this name, and nothing says that it belongs to the registered model."""


class RenamedModelError(StepError):
    """The history of a registered model stands under the name that the model had before."""


@dataclass(frozen=True)
class Found:
    """A registered model as a search shows it."""

    created: str  # milliseconds since 1970 by the server's clock
    tags: Mapping[str, str]


def check(gateway: Gateway, name: str) -> None:
    """Refuse to go by a history that is not this model's, or without the one that it had under another name. Writes nothing.

    Raises:
        ForeignHistoryError: somebody else made the history, or made it anew.
        RenamedModelError: the model was renamed without its history.
    """
    model, history = _find(gateway, name), _find(gateway, journal.name_of(name))
    if model is None:
        return
    if history is None:
        _check_renamed(gateway, name, model)
    elif not _belongs(gateway, name, model, history):
        where, tag = journal.name_of(name), f"set_registered_model_tag({name!r}, {HISTORY_TAG!r}, {history.created!r})"
        raise ForeignHistoryError(
            f"models:/{where} is there, and no promoter of {name!r} made it, so its entries are not believed; an administrator looks at it "
            f"and deletes it, or confirms it: `mlflow.MlflowClient().{tag}`"
        )


def claim(gateway: Gateway, name: str, description: str) -> None:
    """Create the history of a registered model unless it is there, and tag the model with what makes it known.

    Raises:
        ForeignHistoryError, RenamedModelError: as :func:`check`.
    """
    check(gateway, name)
    history = journal.name_of(name)
    found = _find(gateway, history)
    if found is None:
        _tag(gateway, name, PENDING)
        gateway.ensure_model(history, description, {journal.KIND_TAG: "history"})
        found = _find(gateway, history)
    if found is not None and (model := _find(gateway, name)) and model.tags.get(HISTORY_TAG) != found.created:
        _tag(gateway, name, found.created)


def _belongs(gateway: Gateway, name: str, model: Found, history: Found) -> bool:
    tag = model.tags.get(HISTORY_TAG)
    if tag is not None:
        return tag in (PENDING, history.created)
    versions = gateway.versions(name)
    if not versions:  # a model that was deleted and made anew: what was written for the earlier one moves nothing
        return int(history.created) < int(model.created) and bool(gateway.versions(journal.name_of(name)))
    return _had_one(versions)


def _had_one(versions: Sequence[Version]) -> bool:
    """Whether a model of before there was the tag had a history: who registered a version opened it at once, who imported one did not."""
    return any(EVALUATION_TAG in each.tags and ORIGIN_TAG not in each.tags for each in versions)


def _check_renamed(gateway: Gateway, name: str, model: Found) -> None:
    """MLflow renames one registered model at a time; tags and creation times stay."""
    tag = model.tags.get(HISTORY_TAG)
    if tag == PENDING or (tag is None and not _had_one(gateway.versions(name))):
        return
    for left, found in _histories(gateway).items():
        if found.created != tag and (tag is not None or not _written_for(gateway, left, model)):
            continue
        before = left.removesuffix(journal.SUFFIX)
        if _find(gateway, before) is not None:
            continue
        approvals = before + names.APPROVALS_SUFFIX
        others = [(left, journal.name_of(name))]
        if _find(gateway, approvals) is not None:
            others.append((approvals, name + names.APPROVALS_SUFFIX))
        calls = "; ".join(f"mlflow.MlflowClient().rename_registered_model({old!r}, {new!r})" for old, new in others)
        raise RenamedModelError(f"models:/{name} was {before!r} before, and its history still is {left!r}; rename that as well: `{calls}`")


def _written_for(gateway: Gateway, history: str, model: Found) -> bool:
    """Whether a history of before there was the tag is about a model of this creation time, where its entries can be read."""
    try:
        entries = [entry for version in gateway.versions(history) if (entry := journal.entry_of(version))]
    except journal.DamagedRecordError:
        return False
    return any(entry.record.incarnation == model.created for entry in entries)


def _find(gateway: Gateway, name: str) -> Found | None:
    words = filters.equals("name", name)
    page = gateway.repeated(f"reading {name!r}", lambda: gateway.client.search_registered_models(words, max_results=10))
    return next((_found(each) for each in page if each.name == name), None)


def _found(entity: object) -> Found:
    return Found(str(getattr(entity, "creation_timestamp", "")), dict(getattr(entity, "tags", {})))


def _histories(gateway: Gateway) -> dict[str, Found]:
    def call() -> dict[str, Found]:
        found: dict[str, Found] = {}
        token: str | None = None
        while True:
            page = gateway.client.search_registered_models(f"name LIKE '%{journal.SUFFIX}'", max_results=1000, page_token=token)
            found |= {each.name: _found(each) for each in page}
            token = page.token
            if not token:
                return found

    return gateway.repeated("listing the histories", call)


def _tag(gateway: Gateway, name: str, value: str) -> None:
    gateway.repeated(f"tagging {name!r}", lambda: gateway.client.set_registered_model_tag(name, HISTORY_TAG, value))
