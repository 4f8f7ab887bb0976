"""One version, with all that speaks for it, from one tracking server to another: a folder that can be carried and checked."""

from __future__ import annotations

import json
import os
import shutil
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import Any

from steps.config.errors import ConfigError
from steps.config.root import Config
from steps.pipeline import digest
from steps.registry import arrival, standing, versions
from steps.registry import target as targets
from steps.registry.aliases import DIGEST_TAG, EVALUATION_TAG, EVIDENCE_TAG, MODEL_ID_TAG, VERDICT_TAG
from steps.registry.arrival import MODEL, REPORT
from steps.registry.gateway import Gateway, Version
from steps.registry.outcome import RefusedError

SCHEMA = "slm-promote/archive/1"
MANIFEST = "manifest.json"
CARD, LICENCE = "card.md", "licence.txt"
# They say where things are on the server it came from, and what its policy said there.
NOT_CARRIED = frozenset({MODEL_ID_TAG, EVALUATION_TAG, EVIDENCE_TAG, VERDICT_TAG})


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


def export(config: Config, *, gateway: Gateway | None = None) -> Transfer:
    """Write one version into the folder ``archive``: weights, signature, evidence, card, licence and a sha256 manifest.

    The folder appears whole or not at all.

    Raises:
        ConfigError: ``archive`` is not given or exists.
        RefusedError: the version has no evidence about these bytes.
    """
    folder = _archive(config)
    if folder.exists():
        raise ConfigError("archive", str(folder), "a folder that does not exist yet")
    gateway = gateway or Gateway(config.promotion.retry_seconds)
    version = targets.version_of(gateway, targets.parse(config.target, config))
    if version is None:
        raise ConfigError("target", config.target, "models:/<name>/<version> or models:/<name>@<alias>")
    where = standing.look(gateway, version, config)
    if where.evidence is None or where.judged is None:
        raise RefusedError(f"{version.uri} is not exported, as nobody could judge it there: {'; '.join(where.objections)}")
    if config.dry_run:
        size = int(where.judged.metrics.get("size/bytes", 0))
        return Transfer(version.name, version.number, where.digest, 0, size, folder.name, False, True)
    part = folder.with_name(f"{folder.name}.{uuid.uuid4().hex[:8]}.part")
    try:
        files = _write(part, version, where.digest, where.evidence.uri, _command(gateway, version))
        part.rename(folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return Transfer(version.name, version.number, where.digest, len(files), sum(each["size"] for each in files), folder.name, False, False)


def import_(config: Config, *, gateway: Gateway | None = None) -> Transfer:
    """Take the version in the folder ``archive`` into this tracking server, under the active run. No alias is set: that is ``promote``'s.

    Every byte is checked against the manifest before anything is sent, and what arrived is fetched again and checked before a version is
    made of it. The same archive again changes nothing.

    Raises:
        ConfigError: ``archive`` is not given or is no archive.
        RefusedError: a file is missing, too many, or not what the manifest says, here or on arrival.
    """
    folder = _archive(config)
    manifest = check(folder)
    name = str(manifest["name"])
    gateway = gateway or Gateway(config.promotion.retry_seconds)
    there = next((each for each in gateway.versions(name) if each.tags.get(DIGEST_TAG) == manifest["digest"]), None)
    size, count = sum(each["size"] for each in manifest["files"]), len(manifest["files"])
    if there is not None and not config.dry_run:
        arrival.describe(folder, manifest, gateway, there)  # an earlier import may have been ended before it came to that
    if there is not None or config.dry_run:
        return Transfer(
            name, there.number if there else None, manifest["digest"], count, size, folder.name, there is not None, config.dry_run
        )
    version = arrival.receive(folder, manifest, gateway)
    return Transfer(name, version.number, manifest["digest"], count, size, folder.name, False, False)


def check(folder: Path) -> dict[str, Any]:
    """The manifest of an archive, once every file was found to be what it says.

    Raises:
        ConfigError: the folder is no archive.
        RefusedError: a file is missing, too many, or differs; names it.
    """
    try:
        manifest: dict[str, Any] = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        if manifest["schema"] != SCHEMA:
            raise ConfigError("archive", str(folder), f"an archive of the schema {SCHEMA}, not {manifest['schema']}")
        listed = {str(each["path"]): each for each in manifest["files"]}
    except (OSError, ValueError, KeyError, TypeError) as error:
        if isinstance(error, ConfigError):
            raise
        raise ConfigError("archive", str(folder), "a folder that `mlflow run . -e export` wrote") from error
    for path in listed:
        pure = PurePosixPath(path)
        if pure.is_absolute() or ".." in pure.parts:
            raise RefusedError(f"archive={folder}: the manifest names {path!r}, which lies outside of it")
    found = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file() or path.is_symlink()}
    found.pop(MANIFEST)
    for path in sorted({*listed, *found}):
        if path not in found:
            raise RefusedError(f"archive={folder}: {path} is missing; export the version again")
        if path not in listed or found[path].is_symlink():
            raise RefusedError(f"archive={folder}: {path} is not in the manifest; remove it, or export the version again")
        size, expected = found[path].stat().st_size, listed[path]
        if size != expected["size"] or digest.of_file(found[path]) != expected["sha256"]:
            raise RefusedError(f"archive={folder}: {path} is not what was exported (its bytes differ); export the version again")
    whole = digest.of_folder(folder / MODEL)
    if manifest.get("seal") != _seal(manifest):
        raise RefusedError(f"archive={folder}: {MANIFEST} is not what was exported (its name, tags or list differ); export it again")
    if whole != manifest["digest"]:
        raise RefusedError(f"archive={folder}: the model is {whole}, the manifest says {manifest['digest']}; export the version again")
    return manifest


def _command(gateway: Gateway, version: Version) -> str | None:
    """What makes the model again, for its card on the other server."""
    logged = gateway.logged_model(version.model_id) if version.model_id else None
    return versions.remake((gateway.run_tags(logged.source_run_id) if logged and logged.source_run_id else None) or {})


def _archive(config: Config) -> Path:
    if not config.archive:
        raise ConfigError("archive", config.archive, "a folder", "pass archive=…")
    return Path(config.archive).expanduser().absolute()


def _write(part: Path, version: Version, expected: str, report_uri: str, command: str | None) -> list[dict[str, Any]]:
    import mlflow

    part.mkdir(parents=True)
    with TemporaryDirectory(dir=part.parent, prefix=".export-") as place:
        model = Path(mlflow.artifacts.download_artifacts(artifact_uri=version.uri, dst_path=place))
        for meta in list(model.rglob("*")):
            if meta.name in digest.VOLATILE:
                shutil.rmtree(meta) if meta.is_dir() else meta.unlink(missing_ok=True)
        found = digest.of_folder(model)
        if found != expected:
            raise RefusedError(f"{version.uri}: the bytes are {found}, the evidence is about {expected}; no reason overrules this")
        shutil.move(str(model), part / MODEL)
    (part / REPORT).parent.mkdir()
    (part / REPORT).write_text(mlflow.artifacts.load_text(report_uri), encoding="utf-8")
    (part / CARD).write_text(version.description, encoding="utf-8")
    (part / LICENCE).write_text(version.tags.get("slm.licence", "not recorded") + "\n", encoding="utf-8")
    files = [
        {"path": path.relative_to(part).as_posix(), "size": path.stat().st_size, "sha256": digest.of_file(path)}
        for path in sorted(part.rglob("*"))
        if path.is_file()
    ]
    manifest = {
        "schema": SCHEMA,
        "name": version.name,
        "version": version.number,
        "model_id": version.model_id,
        "digest": expected,
        "tags": {key: value for key, value in sorted(version.tags.items()) if key.startswith("slm.") and _carried(key)},
        "evidence": report_uri,
        "command": command,
        "files": files,
    }
    manifest["seal"] = _seal(manifest)
    with (part / MANIFEST).open("w", encoding="utf-8") as stream:
        json.dump(manifest, stream, indent=1, sort_keys=True, ensure_ascii=False)
        stream.flush()
        os.fsync(stream.fileno())
    return files


def _seal(manifest: Mapping[str, Any]) -> str:
    """Digest of what a manifest says, for the parts that no file's digest covers: the name and the tags."""
    return digest.of_value({key: value for key, value in manifest.items() if key != "seal"})


def _carried(key: str) -> bool:
    return key not in NOT_CARRIED and not key.startswith("slm.candidate")
