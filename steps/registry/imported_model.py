"""The logged model of an archive: made once, filled, and checked as it arrived."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

import mlflow
from mlflow.entities import LoggedModel
from mlflow.exceptions import MlflowException

from steps.core import digest, search
from steps.core.errors import StepError
from steps.core.redaction import redact
from steps.core.search import every_page
from steps.registry.archive import MODEL
from steps.registry.client import MISSING, REFUSED, RegistryClient
from steps.registry.result import RefusedError

log = logging.getLogger(__name__)

# digest of the archive's manifest, by which a later attempt finds what an earlier one left
ARCHIVE_TAG = "slm.archive"
# uploads; another import of the same archive may write the same files while this one checks them
ATTEMPTS = 2


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


def fill(registry: RegistryClient, model: LoggedModel, folder: Path, expected: str) -> None:
    """Send the files and fetch them again, until they are what was sent."""
    client, arrived = registry.client, ""
    if str(model.status) == "READY":  # an earlier import came as far as that
        arrived = _arrived(registry, model)
    for _ in range(ATTEMPTS):
        if arrived == expected:
            return
        registry.repeated(
            "sending the model",
            lambda: client.log_model_artifacts(model.model_id, str(folder / MODEL)),
        )
        registry.repeated(
            "finishing the logged model",
            lambda: client.finalize_logged_model(model.model_id, "READY"),
        )
        arrived = _arrived(registry, model)
    if arrived != expected:
        _delete(registry, model.model_id)
        raise RefusedError(
            f"archive={folder}: {arrived} arrived, {expected} was sent; no version was made, import"
            " it again"
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
