"""Export a version with its evidence as a folder that can be carried and checked."""

from __future__ import annotations

import json
import logging
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import mlflow
from mlflow.exceptions import MlflowException

from steps.config.root import Config
from steps.core import digest, tags
from steps.core.errors import ConfigError, StepError
from steps.core.redaction import redact
from steps.evaluation import metrics
from steps.registry import archive, eligibility, import_archive, signing, versions
from steps.registry import target as targets
from steps.registry.archive import CARD, LICENCE, MANIFEST, MODEL, REPORT, check
from steps.registry.client import RegistryClient
from steps.registry.model_version import Version
from steps.registry.result import RefusedError
from steps.registry.retries import first_line

__all__ = ["Transfer", "check", "export", "import_"]


log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Transfer:
    """What an export or an import did, or would do."""

    name: str
    version: int | None
    digest: str
    files: int
    size: int  # bytes
    archive: str
    already: bool  # the target server has these bytes in this model
    dry_run: bool

    def to_json(self) -> dict[str, Any]:
        return {"schema": "slm-promote/transfer/1", **vars(self)}


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
    folder = _archive(config)
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
    part = folder.with_name(f"{folder.name}.{uuid.uuid4().hex[:8]}.part")
    try:
        with _one_line(f"{version.uri} could not be exported to archive={folder}"):
            files = _write(
                part,
                version,
                assessment.digest,
                assessment.evidence.uri,
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


def import_(config: Config, *, registry: RegistryClient | None = None) -> Transfer:
    """Take the version in the folder ``archive`` into this tracking server, under the active run.
    No alias is set: that is ``promote``'s.

    Every byte is checked against the manifest before anything is sent, and what arrived is fetched
    again and checked before a version is made of it. The same archive again changes nothing. With
    ``promotion.require_signer``, the key's holder must have signed it.

    Raises:
        ConfigError: ``archive`` is not given or is not an archive, or ``promotion.require_signer``
            is not a key.
        RefusedError: a file is missing, too many, or not what the manifest says, here or on
            arrival; the manifest asks for a name or a tag that an import does not write; or the
            required signature is missing or by another key.
        StepError: the disk is full or cannot be read.
    """
    folder = _archive(config)
    required = config.promotion.require_signer
    key = signing.check_public_key(required) if required else None
    with _one_line(f"archive={folder} could not be imported"):
        return _import(folder, key, config, registry)


def _import(
    folder: Path, key: Path | None, config: Config, registry: RegistryClient | None
) -> Transfer:
    # before the signature: it says what is wrong with a folder that was never an archive, and reads
    # no large file
    archive.read(folder)
    signature = signing.verify(folder, key) if key else None
    signer = signature.signer if signature else None
    manifest = check(folder, signature.manifest_sha256 if signature else None)
    name = str(manifest["name"])
    registry = registry or RegistryClient(config.promotion.retry_seconds)
    there = next(
        (
            version
            for version in registry.versions(name)
            if version.tags.get(tags.DIGEST) == manifest["digest"]
        ),
        None,
    )
    size, count = sum(version["size"] for version in manifest["files"]), len(manifest["files"])
    if there is not None and not config.dry_run:
        # an earlier import may have been ended before it came to that
        import_archive.describe(folder, manifest, registry, there)
    if there is not None or config.dry_run:
        return Transfer(
            name,
            there.number if there else None,
            manifest["digest"],
            count,
            size,
            folder.name,
            there is not None,
            config.dry_run,
        )
    if signer is None:
        log.warning(
            "archive=%s: no signature is required, so its evidence counts as whoever made it wrote"
            " it; set promotion.require_signer to the PEM file of the key that signs releases, or"
            " let only evaluations of models:/%s in promotion.evidence.experiments count",
            redact(str(folder)),
            name,
        )
    version = import_archive.receive(folder, manifest, registry, signer)
    return Transfer(
        name, version.number, manifest["digest"], count, size, folder.name, False, False
    )


@contextmanager
def _one_line(what: str) -> Iterator[None]:
    """Turn errors of the disk and of artifact stores into one line."""
    try:
        yield
    except (OSError, MlflowException) as error:
        reason = (
            error.strerror if isinstance(error, OSError) and error.strerror else first_line(error)
        )
        raise StepError(f"{what}: {redact(reason)}; mend that and run it again") from error


def _command(registry: RegistryClient, version: Version) -> str | None:
    """What makes the model again, for its card on the other server."""
    return versions.remake(registry.tags_of_maker(registry.logged_model(version.model_id)))


def _archive(config: Config) -> Path:
    if not config.archive:
        raise ConfigError("archive", config.archive, "a folder", "pass archive=…")
    return Path(config.archive).expanduser().absolute()


def _write(
    part: Path, version: Version, expected: str, report_uri: str, command: str | None
) -> list[dict[str, Any]]:
    part.mkdir(parents=True)
    with TemporaryDirectory(dir=part.parent, prefix=".export-") as place:
        model = Path(mlflow.artifacts.download_artifacts(artifact_uri=version.uri, dst_path=place))
        for meta in list(model.rglob("*")):
            if meta.name in digest.VOLATILE:
                shutil.rmtree(meta) if meta.is_dir() else meta.unlink(missing_ok=True)
        fetched = digest.of_folder(model)
        if fetched != expected:
            raise RefusedError(
                f"{version.uri}: the bytes are {fetched}, the evidence is about {expected}; no"
                " reason overrules this"
            )
        shutil.move(str(model), part / MODEL)
    (part / REPORT).parent.mkdir()
    (part / REPORT).write_text(mlflow.artifacts.load_text(report_uri), encoding="utf-8")
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
        "evidence": report_uri,
        "command": command,
        "files": files,
    }
    manifest["seal"] = archive.seal(manifest)
    with (part / MANIFEST).open("w", encoding="utf-8") as stream:
        json.dump(manifest, stream, indent=1, sort_keys=True, ensure_ascii=False)
        stream.flush()
        os.fsync(stream.fileno())
    return files
