"""The evidence of an archive: kept on the import's run, and weighed against what is there."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import mlflow
from mlflow.entities import Run

from steps.config.promotion import PromotionConfig
from steps.core.redaction import redact
from steps.evaluation.report import CandidateReport
from steps.registry import evidence as evidence_module
from steps.registry import evidence_selection, versions
from steps.registry.archive import REPORT
from steps.registry.client import RegistryClient
from steps.registry.evidence import REPORT_FILE, Evidence
from steps.registry.model_version import Version
from steps.registry.result import RefusedError
from steps.registry.trust import trusted

log = logging.getLogger(__name__)

# fingerprint of the key whose signature was required of the archive, and was right
SIGNER_TAG = "slm.archive.signer"


def active_run() -> Run:
    run = mlflow.active_run()
    if run is None:
        raise RuntimeError("an import needs an active MLflow run: its evidence lies there")
    return run


def keep(
    folder: Path, manifest: Mapping[str, Any], registry: RegistryClient, run: Run
) -> tuple[Evidence, CandidateReport]:
    """Put the evidence of an archive on the import's run; with what it says of the bytes."""
    run_id, text = run.info.run_id, report_text(folder, manifest)
    report = evidence_module.parse(f"runs:/{run_id}/{REPORT_FILE}", text)
    candidate = report.of(None, manifest["digest"])
    if candidate is None:
        raise RefusedError(
            f"archive={folder}: its evidence says nothing about the bytes {manifest['digest']};"
            " export the version again"
        )
    registry.repeated(
        "keeping the evidence", lambda: registry.client.log_text(run_id, text, REPORT_FILE)
    )
    return report, candidate


def renew(
    folder: Path,
    manifest: Mapping[str, Any],
    registry: RegistryClient,
    known: Sequence[Version],
    policy: PromotionConfig,
    signer: str | None = None,
) -> None:
    """Weigh an archive's evidence against that of versions that have its bytes already. It becomes
    theirs, whatever it says, unless what they have weighs more or is as strong and newer.

    Args:
        folder: the archive.
        manifest: what :func:`steps.registry.archive.check` returned.
        registry: the tracking server.
        known: versions with these bytes and other evidence.
        policy: what evidence must be like to count.
        signer: fingerprint of the key that signed it, where that was required.
    """
    report, candidate = keep(folder, manifest, registry, active_run())
    for version in known:
        trust = trusted(registry, policy, [version])
        earlier, _ = evidence_selection.recorded(version, trust)
        why = trust.against(report)
        if not why and version.model_id is None:
            why = "its logged model is not known"
        if not why and earlier is not None:
            best = evidence_selection.best([earlier, report], policy)
            if best is not report:
                why = (
                    f"it has {earlier.uri} ({earlier.size} of {earlier.created:%Y-%m-%d %H:%M}),"
                    " which weighs more or is as strong and newer"
                )
        if why:
            log.warning(
                "%s keeps its evidence; that of archive=%s (%s of %s, kept as %s) is not put on it:"
                " %s",
                version.uri,
                redact(str(folder)),
                report.size,
                f"{report.created:%Y-%m-%d %H:%M}",
                report.uri,
                redact(why),
            )
            continue
        model_id = str(version.model_id)
        here = replace(candidate, model_id=model_id, uri=f"models:/{model_id}")
        versions.annotate(
            registry, version, here, report, manifest.get("command") or "not recorded"
        )
        if signer or SIGNER_TAG in version.tags:
            registry.set_version_tag(version.name, version.number, SIGNER_TAG, signer or "none")
        log.info("%s has the evidence %s of archive=%s now", version.uri, report.uri, folder)


def report_text(folder: Path, manifest: Mapping[str, Any]) -> str:
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
