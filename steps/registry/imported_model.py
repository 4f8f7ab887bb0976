"""The logged model of an archive: made once, filled, and checked as it arrived."""

from __future__ import annotations

import hashlib
import logging
import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import Any

import mlflow
from mlflow.entities import LoggedModel
from mlflow.exceptions import MlflowException

from steps.core import digest, search
from steps.core.errors import StepError
from steps.core.files import require_space, temporary_folder
from steps.core.redaction import redact
from steps.core.search import every_page
from steps.registry.archive import MODEL
from steps.registry.client import RegistryClient
from steps.registry.result import RefusedError
from steps.registry.retries import MISSING, REFUSED

log = logging.getLogger(__name__)

# digest of the archive's manifest, by which a later attempt finds what an earlier one left
ARCHIVE_TAG = "slm.archive"
# uploads; another import of the same archive may write the same files while this one checks them
ATTEMPTS = 2
PART = 1 << 20  # bytes that are copied at once


def logged_model(
    registry: RegistryClient,
    name: str,
    experiment_id: str,
    run_id: str,
    version_tags: Mapping[str, str],
) -> LoggedModel:
    """The logged model of this archive: the oldest, where two imports have made one each."""
    seal, mine = version_tags[ARCHIVE_TAG], ""

    def call() -> LoggedModel:
        nonlocal mine
        if there := _of_archive(registry, seal, experiment_id):
            return there[0]
        made = registry.client.create_logged_model(
            experiment_id, name=name, source_run_id=run_id, tags=dict(version_tags)
        )
        mine = made.model_id
        return made

    model = registry.repeated("creating the logged model", call)
    if mine:
        model = next(
            iter(
                registry.repeated(
                    "looking for the archive", lambda: _of_archive(registry, seal, experiment_id)
                )
            ),
            model,
        )
        if model.model_id != mine:
            _delete(registry, mine)
    return model


def _of_archive(registry: RegistryClient, seal: str, experiment_id: str) -> list[LoggedModel]:
    """What imports of this archive left in this experiment, oldest first.

    Every user may make an experiment and a logged model with this tag in it, whose files he may
    change whenever he likes; only those who may edit the import's own experiment can make one
    there.
    """
    words = search.equals(f"tags.`{ARCHIVE_TAG}`", seal)
    models = every_page(
        lambda token: registry.client.search_logged_models(
            [experiment_id], filter_string=words, page_token=token
        )
    )
    ours = [
        model
        for model in models
        if model.experiment_id == experiment_id
        and _is_of(registry, model.source_run_id, experiment_id)
    ]
    return sorted(ours, key=lambda model: (model.creation_timestamp, model.model_id))


def _is_of(registry: RegistryClient, run_id: str | None, experiment_id: str) -> bool:
    """Whether a run belongs to an experiment."""
    try:
        return (
            run_id is not None
            and str(registry.client.get_run(run_id).info.experiment_id) == experiment_id
        )
    except MlflowException as error:
        if error.error_code in {*MISSING, *REFUSED}:
            return False
        raise


@contextmanager
def private_copy(archive: Path, manifest: Mapping[str, Any]) -> Iterator[Path]:
    """The model of an archive in a folder that nobody else writes to: the files of the manifest and
    no others, each hashed while it is copied.

    Raises:
        RefusedError: a file is not what the manifest says, whatever was found of it before.
        OSError: the disk is full, or a file is gone.
    """
    files = [file for file in manifest["files"] if PurePosixPath(file["path"]).parts[0] == MODEL]
    with temporary_folder("slm-import-") as root:
        require_space(sum(file["size"] for file in files), root, "a private copy of the model")
        for file in files:
            target = root / file["path"]
            target.parent.mkdir(parents=True, exist_ok=True)
            if _copy(archive / file["path"], target, file["size"]) != file["sha256"]:
                raise RefusedError(
                    f"archive={archive}: {file['path']} is not what was exported (it was changed"
                    " while it was imported); export the version again"
                )
        yield root / MODEL


def _copy(source: Path, target: Path, size: int) -> str:
    """Copy at most one byte more than ``size``; the sha256 of what was copied, in hexadecimal."""
    # neither a link nor a pipe without a writer is opened
    handle = os.open(source, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    hashed, left = hashlib.sha256(), size + 1
    with os.fdopen(handle, "rb") as reading, target.open("wb") as writing:
        if not stat.S_ISREG(os.fstat(reading.fileno()).st_mode):
            return ""
        while left and (part := reading.read(min(PART, left))):
            hashed.update(part)
            writing.write(part)
            left -= len(part)
    return hashed.hexdigest()


def fill(
    registry: RegistryClient, model: LoggedModel, folder: Path, expected: str, archive: Path
) -> None:
    """Send the files and fetch them again, until they are what was sent.

    Args:
        registry: the tracking server.
        model: that gets them.
        folder: holds them, and nothing else.
        expected: their digest.
        archive: that they are from, for errors.
    """
    client, arrived = registry.client, ""
    if str(model.status) == "READY":  # an earlier import came as far as that
        arrived = _arrived(registry, model)
    for _ in range(ATTEMPTS):
        if arrived == expected:
            return
        registry.repeated(
            "sending the model",
            lambda: client.log_model_artifacts(model.model_id, str(folder)),
        )
        registry.repeated(
            "finishing the logged model",
            lambda: client.finalize_logged_model(model.model_id, "READY"),
        )
        arrived = _arrived(registry, model)
    if arrived != expected:
        _delete(registry, model.model_id)
        raise RefusedError(
            f"archive={archive}: {arrived} arrived, {expected} was sent; no version was made,"
            " import it again"
        )


def _arrived(registry: RegistryClient, model: LoggedModel) -> str:
    def call() -> str:
        with TemporaryDirectory(prefix="slm-import-") as place:
            return digest.of_folder(
                Path(
                    mlflow.artifacts.download_artifacts(
                        artifact_uri=f"models:/{model.model_id}", dst_path=place
                    )
                )
            )

    return registry.repeated("fetching what arrived", call)


def _delete(registry: RegistryClient, model_id: str) -> None:
    """Delete half a model; a failure of that must not hide why it was to be deleted."""

    try:
        registry.repeated(
            "deleting the logged model", lambda: registry.client.delete_logged_model(model_id)
        )
    except (MlflowException, StepError) as error:
        log.warning("the logged model %s could not be deleted (%s)", model_id, redact(str(error)))
