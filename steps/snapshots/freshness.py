"""Whether a snapshot that an earlier run took is still what its source means, and whether its bytes
are still here.
"""

import logging
from functools import cache

from steps.config.model import ModelConfig, Source
from steps.core.errors import ConfigError
from steps.snapshots import folder, hub
from steps.snapshots.errors import HubUnreachableError, SnapshotError
from steps.snapshots.manifest import Snapshot
from steps.snapshots.repository import Repository
from steps.snapshots.store import Store

log = logging.getLogger(__name__)


def stale(model: ModelConfig, snapshot: Snapshot, store: Store) -> str | None:
    """Why fetching again would not give this snapshot; None where it would, or where there is no
    answer.

    A folder is compared by its bytes. A branch or tag is resolved, once a process; where the hub is
    away, what was fetched stands.

    Raises:
        SnapshotError: the hub answers, but refuses.
    """
    if model.source is Source.folder:
        try:
            if different := folder.changed(model, snapshot):
                return different
        except (ConfigError, SnapshotError) as error:
            return f"the folder cannot be read as it was: {error}"
    for repository in hub.repositories(model):
        had = (
            snapshot.revision
            if repository.field == "model"
            else snapshot.origin.get("onnx_revision")
        )
        means = meaning(repository)
        if means not in (None, had):
            return (
                f"{repository.field}.revision={repository.requested!r} of {repository.repo} means"
                f" {means} now and meant {had}"
            )
    if damaged := store.damaged((*snapshot.files, *snapshot.onnx_files)):
        return (
            f"{len(damaged)} of its files are missing or changed in store.path={str(store.root)!r},"
            f" such as {damaged[0].path}"
        )
    return None


@cache
def meaning(repository: Repository) -> str | None:
    """The commit that a repository's revision means; None where the hub is away."""
    try:
        return hub.resolve(repository)
    except HubUnreachableError as error:
        log.warning(
            "%s; taking what %s=%r meant when it was fetched",
            error,
            f"{repository.field}.revision",
            repository.requested,
        )
        return None
