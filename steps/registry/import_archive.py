"""Import an exported version: each step first looks for what an earlier attempt left."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import mlflow
from mlflow.entities import LoggedModel
from mlflow.exceptions import MlflowException

from steps.core import digest, search, tags
from steps.core.errors import StepError
from steps.core.redaction import redact
from steps.core.search import every_page
from steps.registry import archive, card, versions
from steps.registry import evidence as evidence_module
from steps.registry.alias_store import AliasStore
from steps.registry.archive import MODEL, REPORT
from steps.registry.client import MISSING, REFUSED, RegistryClient
from steps.registry.evidence import Evidence
from steps.registry.model_version import Version
from steps.registry.result import RefusedError

log = logging.getLogger(__name__)

# fingerprint of the key whose signature was required of the archive, and was right
SIGNER_TAG = "slm.archive.signer"
# digest of the archive's manifest, by which a later attempt finds what an earlier one left
ARCHIVE_TAG = "slm.archive"
# uploads; another import of the same archive may write the same files while this one checks them
ATTEMPTS = 2


def receive(
    folder: Path, manifest: Mapping[str, Any], registry: RegistryClient, signer: str | None = None
) -> Version:
    """Make a logged model and a version of an archive that was checked; of the active run, where
    its evidence will lie.

    Args:
        folder: the archive.
        manifest: what :func:`steps.registry.archive.check` returned.
        registry: the tracking server it goes to.
        signer: fingerprint of the key that signed it, where that was required.

    Raises:
        RefusedError: the evidence is about other bytes, or other bytes arrived than were sent.
    """
    run = mlflow.active_run()
    if run is None:
        raise RuntimeError("an import needs an active MLflow run: its evidence lies there")
    run_id, text = run.info.run_id, _report(folder, manifest)
    report = evidence_module.parse(f"runs:/{run_id}/report.json", text)
    candidate = report.of(None, manifest["digest"])
    if candidate is None:
        raise RefusedError(
            f"archive={folder}: its evidence says nothing about the bytes {manifest['digest']};"
            " export the version again"
        )
    registry.repeated(
        "keeping the evidence", lambda: registry.client.log_text(run_id, text, "report.json")
    )
    origin = f"{manifest['name']}/{manifest.get('version')} {manifest.get('model_id')}"
    said = archive.carried(manifest["tags"])
    if said.get(tags.VARIANT, candidate.variant) != candidate.variant:
        words = (
            f"its tag {tags.VARIANT} is {said[tags.VARIANT]!r}, its evidence is about"
            f" {candidate.variant!r}"
        )
        raise RefusedError(f"archive={folder}: {words}; export the version again")
    version_tags = {
        **said,
        tags.DIGEST: manifest["digest"],
        tags.VARIANT: candidate.variant,
        tags.IMPORTED_FROM: origin,
        ARCHIVE_TAG: manifest["seal"],
    }
    if signer:
        version_tags[SIGNER_TAG] = signer
    model = _logged_model(registry, candidate.variant, run.info.experiment_id, run_id, version_tags)
    _fill(registry, model, folder, str(manifest["digest"]))
    registry.ensure_model(
        manifest["name"],
        f"{manifest['name']}: imported versions; an alias is set by `promote` alone.",
        {},
    )
    # before a version is there: no other user can give it a history
    AliasStore(registry, manifest["name"]).claim()
    evidence_tags = {
        tags.MODEL_ID: model.model_id,
        tags.EVALUATION: report.uri,
        tags.EVIDENCE_DIGEST: report.digest,
    }
    text = _card(manifest, report, model.model_id, "…")
    version, _ = versions.ensure(
        registry, manifest["name"], model.model_id, {**version_tags, **evidence_tags}, text
    )
    describe(folder, manifest, registry, version)
    return version


def describe(
    folder: Path, manifest: Mapping[str, Any], registry: RegistryClient, version: Version
) -> None:
    """Give a version of this archive a card with its own name, number and links."""
    if version.tags.get(ARCHIVE_TAG) != manifest["seal"] or version.model_id is None:
        return
    # taken off by somebody; `evaluate` gives it evidence again
    if tags.EVALUATION not in version.tags:
        return
    report = evidence_module.parse(version.tags[tags.EVALUATION], _report(folder, manifest))
    text = _card(manifest, report, version.model_id, version.number)
    if version.description != text:
        registry.describe(version.name, version.number, text)


def _report(folder: Path, manifest: Mapping[str, Any]) -> str:
    """The text of the evidence, if it still has the bytes that the manifest says."""
    data = (folder / REPORT).read_bytes()
    expected = next(file["sha256"] for file in manifest["files"] if file["path"] == REPORT)
    if hashlib.sha256(data).hexdigest() != expected:
        raise RefusedError(
            f"archive={folder}: {REPORT} is not what was exported (its bytes differ); export the"
            " version again"
        )
    try:
        return data.decode()
    except ValueError as error:
        raise RefusedError(
            f"archive={folder}: {REPORT} is not UTF-8 text; export the version again"
        ) from error


def _card(manifest: Mapping[str, Any], report: Evidence, model_id: str, number: int | str) -> str:
    candidate = report.of(None, manifest["digest"])
    assert candidate is not None, "checked before anything was sent"
    here = replace(candidate, model_id=model_id, uri=f"models:/{model_id}")
    return card.render(
        manifest["name"],
        number,
        here,
        report,
        manifest["tags"],
        manifest.get("command") or "not recorded",
    )


def _logged_model(
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


def _fill(registry: RegistryClient, model: LoggedModel, folder: Path, expected: str) -> None:
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
