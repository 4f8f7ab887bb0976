"""An exported version on its way into a tracking server: each step looks for what an earlier
attempt left, and goes on from there.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from steps.core import digest, search
from steps.core.redaction import redact
from steps.core.search import every_page
from steps.registry import archive, card, versions
from steps.registry import evidence as evidence_module
from steps.registry.alias_store import AliasStore
from steps.registry.aliases import (
    DIGEST_TAG,
    EVALUATION_TAG,
    EVIDENCE_TAG,
    MODEL_ID_TAG,
    ORIGIN_TAG,
    VARIANT_TAG,
)
from steps.registry.archive import MODEL, REPORT
from steps.registry.client import MISSING, REFUSED, RegistryClient, Version
from steps.registry.evidence import Evidence
from steps.registry.result import RefusedError

if TYPE_CHECKING:
    from mlflow.entities import LoggedModel

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
    import mlflow

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
    if said.get(VARIANT_TAG, candidate.variant) != candidate.variant:
        words = (
            f"its tag {VARIANT_TAG} is {said[VARIANT_TAG]!r}, its evidence is about"
            f" {candidate.variant!r}"
        )
        raise RefusedError(f"archive={folder}: {words}; export the version again")
    tags = {
        **said,
        DIGEST_TAG: manifest["digest"],
        VARIANT_TAG: candidate.variant,
        ORIGIN_TAG: origin,
        ARCHIVE_TAG: manifest["seal"],
    }
    if signer:
        tags[SIGNER_TAG] = signer
    model = _logged_model(registry, candidate.variant, run.info.experiment_id, run_id, tags)
    _fill(registry, model, folder, str(manifest["digest"]))
    registry.ensure_model(
        manifest["name"],
        f"{manifest['name']}: imported versions; an alias is set by `promote` alone.",
        {},
    )
    # before a version is there: no other user can give it a history
    AliasStore(registry, manifest["name"]).claim()
    evidence_tags = {
        MODEL_ID_TAG: model.model_id,
        EVALUATION_TAG: report.uri,
        EVIDENCE_TAG: report.digest,
    }
    text = _card(manifest, report, model.model_id, "…")
    version, _ = versions.ensure(
        registry, manifest["name"], model.model_id, {**tags, **evidence_tags}, text
    )
    describe(folder, manifest, registry, version)
    return version


def describe(
    folder: Path, manifest: Mapping[str, Any], registry: RegistryClient, version: Version
) -> None:
    """Give a version that was made of this archive its card: with its own name, number and links,
    not those of where it came from.
    """
    if version.tags.get(ARCHIVE_TAG) != manifest["seal"] or version.model_id is None:
        return
    # taken off by somebody; `evaluate` gives it evidence again
    if EVALUATION_TAG not in version.tags:
        return
    report = evidence_module.parse(version.tags[EVALUATION_TAG], _report(folder, manifest))
    text = _card(manifest, report, version.model_id, version.number)
    if version.description != text:
        registry.describe(version.name, version.number, text)


def _report(folder: Path, manifest: Mapping[str, Any]) -> str:
    """The evidence, as the manifest has its bytes: they were checked, and may have changed
    since.
    """
    data = (folder / REPORT).read_bytes()
    expected = next(each["sha256"] for each in manifest["files"] if each["path"] == REPORT)
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
    registry: RegistryClient, name: str, experiment_id: str, run_id: str, tags: Mapping[str, str]
) -> LoggedModel:
    """The logged model of this archive: the oldest of this experiment, should two imports have made
    one each.
    """
    seal, mine = tags[ARCHIVE_TAG], ""

    def call() -> LoggedModel:
        nonlocal mine
        if there := _of_archive(registry, seal, experiment_id):
            return there[0]
        made = registry.client.create_logged_model(
            experiment_id, name=name, source_run_id=run_id, tags=dict(tags)
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
    found = every_page(
        lambda token: registry.client.search_logged_models(
            [experiment_id], filter_string=words, page_token=token
        )
    )
    ours = [
        each
        for each in found
        if each.experiment_id == experiment_id
        and _is_of(registry, each.source_run_id, experiment_id)
    ]
    return sorted(ours, key=lambda each: (each.creation_timestamp, each.model_id))


def _is_of(registry: RegistryClient, run_id: str | None, experiment_id: str) -> bool:
    """Whether a run belongs to an experiment."""
    from mlflow.exceptions import MlflowException

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
    import mlflow

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
    """Half a model must not be found by anybody; that it cannot be deleted must not hide why it
    should be.
    """
    from mlflow.exceptions import MlflowException

    from steps.core.errors import StepError

    try:
        registry.repeated(
            "deleting the logged model", lambda: registry.client.delete_logged_model(model_id)
        )
    except (MlflowException, StepError) as error:
        log.warning("the logged model %s could not be deleted (%s)", model_id, redact(str(error)))
