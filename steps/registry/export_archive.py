"""Export a version with its evidence as a folder that can be carried and checked."""

from __future__ import annotations

import json
import os
import shutil
import uuid
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import mlflow

from steps.config.root import Config
from steps.core import bytecode, digest, tags
from steps.core.errors import ConfigError
from steps.evaluation import metrics
from steps.registry import archive, eligibility, signing, trust, versions
from steps.registry import target as targets
from steps.registry.archive import CARD, LICENCE, MANIFEST, MODEL, REPORT
from steps.registry.client import RegistryClient
from steps.registry.evidence import Evidence
from steps.registry.model_version import Version
from steps.registry.result import RefusedError
from steps.registry.transfer import Transfer, folder_of, one_line


def export(config: Config, *, registry: RegistryClient | None = None) -> Transfer:
    """Write one version into the folder ``archive``: weights, signature, evidence, card, licence
    and a sha256 manifest.

    The folder appears whole or not at all. With ``signing_key`` it is signed.

    Raises:
        ConfigError: ``archive`` is not given or exists, or ``signing_key`` is not a key.
        RefusedError: the version has no evidence about these bytes.
        StepError: its artifacts are gone, or the folder cannot be written (a full disk, no
            permission).
    """
    folder = folder_of(config)
    key = signing.check_private_key(config.signing_key) if config.signing_key else None
    if folder.exists():
        raise ConfigError("archive", str(folder), "a folder that does not exist yet")
    registry = registry or RegistryClient(config.promotion.retry_seconds)
    version = targets.version_of(registry, targets.parse(config.target, config))
    if version is None:
        raise ConfigError(
            "target", config.target, "models:/<name>/<version> or models:/<name>@<alias>"
        )
    assessment = eligibility.assess(
        registry,
        version,
        replace(config.promotion, alias=config.alias or config.promotion.alias),
        report_uri=config.report_uri,
    )
    if assessment.evidence is None or assessment.candidate is None:
        raise RefusedError(
            f"{version.uri} is not exported, as it could not be judged there:"
            f" {'; '.join(assessment.objections)}"
        )
    if config.dry_run:
        size = int(assessment.candidate.metrics.get(metrics.SIZE, 0))
        return Transfer(
            version.name, version.number, assessment.digest, 0, size, folder.name, False, True
        )
    trust.check_address(registry, version.uri, config.promotion)
    part = folder.with_name(f"{folder.name}.{uuid.uuid4().hex[:8]}.part")
    try:
        with one_line(f"{version.uri} could not be exported to archive={folder}"):
            files = _write(
                part,
                version,
                assessment.digest,
                assessment.evidence,
                _command(registry, version),
            )
            if key is not None:
                signing.sign(part, key)
            part.rename(folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return Transfer(
        version.name,
        version.number,
        assessment.digest,
        len(files),
        sum(file["size"] for file in files),
        folder.name,
        False,
        False,
    )


def _command(registry: RegistryClient, version: Version) -> str | None:
    """What makes the model again, for its card on the other server."""
    return versions.remake(registry.tags_of_maker(registry.logged_model(version.model_id)))


def _write(
    part: Path, version: Version, expected: str, evidence: Evidence, command: str | None
) -> list[dict[str, Any]]:
    part.mkdir(parents=True)
    with TemporaryDirectory(dir=part.parent, prefix=".export-") as place:
        model = Path(mlflow.artifacts.download_artifacts(artifact_uri=version.uri, dst_path=place))
        (model / digest.REGISTERED).unlink(missing_ok=True)
        for compiled in list(model.rglob(bytecode.CACHE)):
            shutil.rmtree(compiled)
        fetched = digest.of_folder(model)
        if fetched != expected:
            raise RefusedError(
                f"{version.uri}: the bytes are {fetched}, the evidence is about {expected}; no"
                " reason overrules this"
            )
        shutil.move(str(model), part / MODEL)
    (part / REPORT).parent.mkdir()
    (part / REPORT).write_text(evidence.text, encoding="utf-8")
    (part / CARD).write_text(version.description, encoding="utf-8")
    (part / LICENCE).write_text(
        version.tags.get(tags.LICENCE, "not recorded") + "\n", encoding="utf-8"
    )
    files = [
        {
            "path": path.relative_to(part).as_posix(),
            "size": path.stat().st_size,
            "sha256": digest.sha256_of(path),
        }
        for path in sorted(part.rglob("*"))
        if path.is_file()
    ]
    manifest = {
        "schema": archive.SCHEMA,
        "name": version.name,
        "version": version.number,
        "model_id": version.model_id,
        "digest": expected,
        "tags": archive.carried(version.tags),
        "evidence": evidence.uri,
        "command": command,
        "files": files,
    }
    manifest["seal"] = archive.seal(manifest)
    with (part / MANIFEST).open("w", encoding="utf-8") as stream:
        json.dump(manifest, stream, indent=1, sort_keys=True, ensure_ascii=False)
        stream.flush()
        os.fsync(stream.fileno())
    return files
