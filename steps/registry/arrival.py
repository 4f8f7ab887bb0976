"""An exported version on its way into a tracking server: each step looks for what an earlier attempt left, and goes on from there."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from steps.core.redaction import redact
from steps.pipeline import digest, filters
from steps.pipeline.pages import every_page
from steps.registry import archive, card, versions
from steps.registry import evidence as evidence_module
from steps.registry.aliases import DIGEST_TAG, EVALUATION_TAG, EVIDENCE_TAG, MODEL_ID_TAG, ORIGIN_TAG, VARIANT_TAG
from steps.registry.archive import MODEL, REPORT
from steps.registry.evidence import Evidence
from steps.registry.gateway import MISSING, REFUSED, Gateway, Version
from steps.registry.ledger import Ledger
from steps.registry.outcome import RefusedError

if TYPE_CHECKING:
    from mlflow.entities import LoggedModel

log = logging.getLogger(__name__)

SIGNER_TAG = "slm.archive.signer"  # fingerprint of the key whose signature was required of the archive, and was right
ARCHIVE_TAG = "slm.archive"  # digest of the archive's manifest, by which a later attempt finds what an earlier one left
ATTEMPTS = 2  # uploads; another import of the same archive may write the same files while this one checks them


def receive(folder: Path, manifest: Mapping[str, Any], gateway: Gateway, signer: str | None = None) -> Version:
    """Make a logged model and a version of an archive that was checked; of the active run, where its evidence will lie.

    Args:
        folder: the archive.
        manifest: what :func:`steps.registry.archive.check` returned.
        gateway: the tracking server it goes to.
        signer: fingerprint of the key that signed it, where that was required.

    Raises:
        RefusedError: the evidence is about other bytes, or other bytes arrived than were sent.
    """
    import mlflow

    run = mlflow.active_run()
    if run is None:
        raise RuntimeError("an import needs an active MLflow run: its evidence lies there")
    run_id, text = run.info.run_id, _report(folder)
    report = evidence_module.parse(f"runs:/{run_id}/report.json", text)
    judged = report.of(None, manifest["digest"])
    if judged is None:
        raise RefusedError(f"archive={folder}: its evidence says nothing about the bytes {manifest['digest']}; export the version again")
    gateway.repeated("keeping the evidence", lambda: gateway.client.log_text(run_id, text, "report.json"))
    origin = f"{manifest['name']}/{manifest.get('version')} {manifest.get('model_id')}"
    said = archive.carried(manifest["tags"])
    if said.get(VARIANT_TAG, judged.variant) != judged.variant:
        words = f"its tag {VARIANT_TAG} is {said[VARIANT_TAG]!r}, its evidence is about {judged.variant!r}"
        raise RefusedError(f"archive={folder}: {words}; export the version again")
    tags = {**said, DIGEST_TAG: manifest["digest"], VARIANT_TAG: judged.variant, ORIGIN_TAG: origin, ARCHIVE_TAG: manifest["seal"]}
    if signer:
        tags[SIGNER_TAG] = signer
    model = _logged_model(gateway, judged.variant, run.info.experiment_id, run_id, tags)
    _fill(gateway, model, folder, str(manifest["digest"]))
    gateway.ensure_model(manifest["name"], f"{manifest['name']}: imported versions; an alias is set by `promote` alone.", {})
    Ledger(gateway, manifest["name"]).claim()  # before a version is there: nobody else can give it a history
    evidence_tags = {MODEL_ID_TAG: model.model_id, EVALUATION_TAG: report.uri, EVIDENCE_TAG: report.digest}
    text = _card(manifest, report, model.model_id, "…")
    version, _ = versions.ensure(gateway, manifest["name"], model.model_id, {**tags, **evidence_tags}, text)
    describe(folder, manifest, gateway, version)
    return version


def describe(folder: Path, manifest: Mapping[str, Any], gateway: Gateway, version: Version) -> None:
    """Give a version that was made of this archive its card: with its own name, number and links, not those of where it came from."""
    if version.tags.get(ARCHIVE_TAG) != manifest["seal"] or version.model_id is None:
        return
    if EVALUATION_TAG not in version.tags:  # taken off by somebody; `evaluate` gives it evidence again
        return
    report = evidence_module.parse(version.tags[EVALUATION_TAG], _report(folder))
    text = _card(manifest, report, version.model_id, version.number)
    if version.description != text:
        gateway.describe(version.name, version.number, text)


def _report(folder: Path) -> str:
    try:
        return (folder / REPORT).read_text(encoding="utf-8")
    except ValueError as error:
        raise RefusedError(f"archive={folder}: {REPORT} is not UTF-8 text; export the version again") from error


def _card(manifest: Mapping[str, Any], report: Evidence, model_id: str, number: int | str) -> str:
    judged = report.of(None, manifest["digest"])
    assert judged is not None, "checked before anything was sent"
    here = replace(judged, model_id=model_id, uri=f"models:/{model_id}")
    return card.render(manifest["name"], number, here, report, manifest["tags"], manifest.get("command") or "not recorded")


def _logged_model(gateway: Gateway, name: str, experiment_id: str, run_id: str, tags: Mapping[str, str]) -> LoggedModel:
    """The logged model of this archive: the oldest of this experiment, should two imports have made one each."""
    seal, mine = tags[ARCHIVE_TAG], ""

    def call() -> LoggedModel:
        nonlocal mine
        if there := _of_archive(gateway, seal, experiment_id):
            return there[0]
        made = gateway.client.create_logged_model(experiment_id, name=name, source_run_id=run_id, tags=dict(tags))
        mine = made.model_id
        return made

    model = gateway.repeated("creating the logged model", call)
    if mine:
        model = next(iter(gateway.repeated("looking for the archive", lambda: _of_archive(gateway, seal, experiment_id))), model)
        if model.model_id != mine:
            _delete(gateway, mine)
    return model


def _of_archive(gateway: Gateway, seal: str, experiment_id: str) -> list[LoggedModel]:
    """What imports of this archive left in this experiment, oldest first.

    Every user may make an experiment and a logged model with this tag in it, whose files he may change whenever he likes; only those
    who may edit the import's own experiment can make one there.
    """
    words = filters.equals(f"tags.`{ARCHIVE_TAG}`", seal)
    found = every_page(lambda token: gateway.client.search_logged_models([experiment_id], filter_string=words, page_token=token))
    ours = [each for each in found if each.experiment_id == experiment_id and _is_of(gateway, each.source_run_id, experiment_id)]
    return sorted(ours, key=lambda each: (each.creation_timestamp, each.model_id))


def _is_of(gateway: Gateway, run_id: str | None, experiment_id: str) -> bool:
    """Whether a run belongs to an experiment."""
    from mlflow.exceptions import MlflowException

    try:
        return run_id is not None and str(gateway.client.get_run(run_id).info.experiment_id) == experiment_id
    except MlflowException as error:
        if error.error_code in {*MISSING, *REFUSED}:
            return False
        raise


def _fill(gateway: Gateway, model: LoggedModel, folder: Path, expected: str) -> None:
    """Send the files and fetch them again, until they are what was sent."""
    client, arrived = gateway.client, ""
    if str(model.status) == "READY":  # an earlier import came as far as that
        arrived = _arrived(gateway, model)
    for _ in range(ATTEMPTS):
        if arrived == expected:
            return
        gateway.repeated("sending the model", lambda: client.log_model_artifacts(model.model_id, str(folder / MODEL)))
        gateway.repeated("finishing the logged model", lambda: client.finalize_logged_model(model.model_id, "READY"))
        arrived = _arrived(gateway, model)
    if arrived != expected:
        _delete(gateway, model.model_id)
        raise RefusedError(f"archive={folder}: {arrived} arrived, {expected} was sent; no version was made, import it again")


def _arrived(gateway: Gateway, model: LoggedModel) -> str:
    import mlflow

    def call() -> str:
        with TemporaryDirectory(prefix="slm-import-") as place:
            return digest.of_folder(Path(mlflow.artifacts.download_artifacts(artifact_uri=f"models:/{model.model_id}", dst_path=place)))

    return gateway.repeated("fetching what arrived", call)


def _delete(gateway: Gateway, model_id: str) -> None:
    """Half a model must not be found by anybody; that it cannot be deleted must not hide why it should be."""
    from mlflow.exceptions import MlflowException

    from steps.pipeline.errors import StepError

    try:
        gateway.repeated("deleting the logged model", lambda: gateway.client.delete_logged_model(model_id))
    except (MlflowException, StepError) as error:
        log.warning("the logged model %s could not be deleted (%s)", model_id, redact(str(error)))
