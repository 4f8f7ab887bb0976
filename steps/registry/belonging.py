"""Which history belongs to a registered model: the one that the model's own tag names by its
creation time.

Every user may create a registered model of a free name, ``<name>.history`` among them, and would
then decide what stands in it. Whoever may edit ``<name>`` may move its aliases anyway, so the tag
is theirs to write: it is set before the first entry, and a history that it does not name is not
believed. Without the tag, a model of earlier days or one that was made anew is known by what is
there, but on a database file alone, which has no users: on a server that needs an administrator.
"""

from __future__ import annotations

import hashlib
import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

import mlflow

from steps.config import names
from steps.core import search, tags
from steps.core.errors import StepError
from steps.core.model_uri import parse
from steps.registry import journal
from steps.registry.client import RegistryClient
from steps.registry.entry import DamagedRecordError, entry_of
from steps.registry.model_version import Version

# A promoter that is about to create the history tags the model with the SHA-256 of a random text,
# under a key of its own, as others may do so at the same moment; the history that it creates has
# the text as a tag. Whoever reads the model's tags cannot make a history that fits.
PENDING_TAG = "slm.history.pending."  # on the model, with the beginning of the hash behind it
PROOF_TAG = "slm.history.proof"  # on the history: that text
PENDING = (
    "pending"  # earlier versions of this project wrote it, and the hashes, into the model's tag
)
RACE_SECONDS, POLL_SECONDS = 10.0, 0.2  # how long another promoter may take to name what it created


class ForeignHistoryError(StepError):
    """There is a history of this name, and nothing says that it belongs to the registered model."""


class RenamedModelError(StepError):
    """The history of a registered model stands under the name that the model had before."""


@dataclass(frozen=True)
class Found:
    """A registered model as a search shows it."""

    created: str  # milliseconds since 1970 by the server's clock
    tags: Mapping[str, str]


def check(registry: RegistryClient, name: str) -> None:
    """Refuse to go by a history that is not this model's, or without the one that it had under
    another name. Writes nothing.

    Raises:
        ForeignHistoryError: somebody else made the history, or made it anew.
        RenamedModelError: the model was renamed without its history.
    """
    # the history first: what says whose it is stands on the model before the history is created
    history = _find(registry, journal.name_of(name))
    model = _find(registry, name)
    if model is None:
        return
    if history is None:
        _check_renamed(registry, name, model)
    elif not _belongs(registry, name, model, history):
        history_name, tag = (
            journal.name_of(name),
            f"set_registered_model_tag({name!r}, {tags.HISTORY!r}, {history.created!r})",
        )
        raise ForeignHistoryError(
            f"models:/{history_name} is there, and no promoter of {name!r} made it, so its entries"
            " are not believed; an administrator looks at it and at who may edit it, and deletes"
            " it, or confirms it (also where the model was made anew, or by an earlier version of"
            f" this project): `mlflow.MlflowClient().{tag}`"
        )


def claim(registry: RegistryClient, name: str, description: str) -> None:
    """Create the history of a registered model unless it is there, and tag the model with what
    makes it known.

    Raises:
        ForeignHistoryError, RenamedModelError: as :func:`check`.
    """
    check(registry, name)
    history = journal.name_of(name)
    created = _find(registry, history)
    if created is None:
        proof = secrets.token_hex(32)
        digest = _hash(proof)
        _tag(registry, name, PENDING_TAG + digest[:16], digest)
        known_by = {journal.KIND_TAG: "history", PROOF_TAG: proof}
        if not registry.ensure_model(history, description, known_by):
            _wait_for(registry, name)
        created = _find(registry, history)
    model = _find(registry, name)
    if created is None or model is None:
        return
    if model.tags.get(tags.HISTORY) != created.created:
        _tag(registry, name, tags.HISTORY, created.created)
    for key in model.tags:
        if key.startswith(PENDING_TAG):  # also of a promoter that was ended
            registry.delete_model_tag(name, key)


def _hash(proof: str) -> str:
    return hashlib.sha256(proof.encode()).hexdigest()


def _wait_for(registry: RegistryClient, name: str) -> None:
    """Somebody else has created the history just now: another promoter, who names it in a moment.

    Raises:
        ForeignHistoryError: it was not a promoter.
    """
    deadline = time.monotonic() + RACE_SECONDS
    while True:
        try:
            return check(registry, name)
        except ForeignHistoryError:
            if time.monotonic() > deadline:
                raise
        time.sleep(POLL_SECONDS)


def _belongs(registry: RegistryClient, name: str, model: Found, history: Found) -> bool:
    tag = model.tags.get(tags.HISTORY)
    if tag is not None and not tag.startswith(PENDING):
        return tag == history.created
    pending = [value for key, value in model.tags.items() if key.startswith(PENDING_TAG)]
    if tag is not None or pending:
        return _hash(history.tags.get(PROOF_TAG, "")) in [*pending, *(tag or "").split()[1:]]
    if not without_users():
        return False
    versions = registry.versions(name)
    # a model that was deleted and made anew: what was written for the earlier one moves nothing
    if not versions:
        return int(history.created) < int(model.created) and bool(
            registry.versions(journal.name_of(name))
        )
    return _had_one(versions)


def without_users() -> bool:
    """Whether the registry is a file that this process opens itself: who may write to it may do
    anything, and no proof would tell one from another.
    """
    return urlsplit(mlflow.get_registry_uri()).scheme in ("sqlite", "file", "")


def _had_one(versions: Sequence[Version]) -> bool:
    """Whether a model without the tag had a history: a report registered it, no import did, and no
    version of another model was copied with its tags.
    """
    return any(
        tags.EVALUATION in version.tags
        and tags.IMPORTED_FROM not in version.tags
        and (uri := parse(version.source)) is not None
        and uri.model_id is not None
        for version in versions
    )


def _check_renamed(registry: RegistryClient, name: str, model: Found) -> None:
    """MLflow renames one registered model at a time; tags and creation times stay."""
    tag = model.tags.get(tags.HISTORY)
    pending = any(key.startswith(PENDING_TAG) for key in model.tags)
    if (tag or "").startswith(PENDING) or (
        tag is None and (pending or not _had_one(registry.versions(name)))
    ):
        return
    for left, history in _histories(registry).items():
        if history.created != tag and (tag is not None or not _written_for(registry, left, model)):
            continue
        before = left.removesuffix(journal.SUFFIX)
        if _find(registry, before) is not None:
            continue
        approvals = before + names.APPROVALS_SUFFIX
        others = [(left, journal.name_of(name))]
        if _find(registry, approvals) is not None:
            others.append((approvals, name + names.APPROVALS_SUFFIX))
        calls = "; ".join(
            f"mlflow.MlflowClient().rename_registered_model({old!r}, {new!r})"
            for old, new in others
        )
        raise RenamedModelError(
            f"models:/{name} was {before!r} before, and its history still is {left!r}; rename that"
            f" as well: `{calls}`"
        )


def _written_for(registry: RegistryClient, history: str, model: Found) -> bool:
    """Whether entries of a history are about a model of this creation time."""
    try:
        entries = [entry for version in registry.versions(history) if (entry := entry_of(version))]
    except DamagedRecordError:
        return False
    return any(entry.record.incarnation == model.created for entry in entries)


def _find(registry: RegistryClient, name: str) -> Found | None:
    words = search.equals("name", name)
    page = registry.repeated(
        f"reading {name!r}", lambda: registry.client.search_registered_models(words, max_results=10)
    )
    return next((_found(entity) for entity in page if entity.name == name), None)


def _found(entity: object) -> Found:
    return Found(str(getattr(entity, "creation_timestamp", "")), dict(getattr(entity, "tags", {})))


def _histories(registry: RegistryClient) -> dict[str, Found]:
    entities = registry.repeated(
        "listing the histories",
        lambda: search.every_page(
            lambda token: registry.client.search_registered_models(
                f"name LIKE '%{journal.SUFFIX}'", max_results=1000, page_token=token
            )
        ),
    )
    return {entity.name: _found(entity) for entity in entities}


def _tag(registry: RegistryClient, name: str, key: str, value: str) -> None:
    registry.repeated(
        f"tagging {name!r}",
        lambda: registry.client.set_registered_model_tag(name, key, value),
    )
