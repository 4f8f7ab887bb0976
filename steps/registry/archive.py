"""An exported version as a folder: its manifest, and the checks it must pass before anything in it
is believed.

Whoever can write into the folder can write a manifest. So a manifest says which bytes there are and
what they are, never what they are worth: no tag of the journal, of an approval, of a verdict or of
a status is taken from it.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from jsonschema import Draft202012Validator
from jsonschema.exceptions import best_match

from steps.config import names
from steps.core import bytecode, digest, tags
from steps.core.errors import ConfigError
from steps.registry.evidence import LARGEST_REPORT
from steps.registry.result import RefusedError

SCHEMA = "slm-promote/archive/1"
MANIFEST = "manifest.json"
# of all other files; a Sigstore bundle, made by steps/registry/signing.py
SIGNATURE = "archive.sig"
MODEL, REPORT = "model", "evidence/report.json"
CARD, LICENCE = "card.md", "licence.txt"
# What the artefact is and where it comes from. Everything else is said by the server that the
# version arrives on.
CARRIED = frozenset(
    {
        tags.VARIANT,
        tags.FINGERPRINT,
        tags.SNAPSHOT_DIGEST,
        tags.SNAPSHOT_REVISION,
        tags.LICENCE,
        tags.CAPABILITIES,
        tags.DIGEST,
    }
)
# exports of earlier versions carried them; an import writes its own
LEFT_BEHIND = frozenset({tags.IMPORTED_FROM, "slm.archive"})
MOST_FILES = 10_000  # a sharded checkpoint has some hundreds
MOST_BYTES = 2 * 1024**4  # 2 TiB; the largest open checkpoints have 1.3
LARGEST_MANIFEST = 16 * 1024**2  # bytes
DEEPEST = 32  # folders in a path

_TEXT = {"type": "string", "maxLength": 5000}
_SHAPE: dict[str, Any] = {
    "type": "object",
    "required": ["schema", "name", "digest", "tags", "files", "seal"],
    "properties": {
        "schema": {"const": SCHEMA},
        "name": {"type": "string"},
        "version": {"type": ["integer", "null"], "minimum": 1},
        "model_id": {"type": ["string", "null"], "maxLength": 100},
        "digest": {"type": "string", "pattern": "^sha256:[0-9a-f]{64}$"},
        "tags": {"type": "object", "maxProperties": 100, "additionalProperties": _TEXT},
        "evidence": _TEXT,
        "command": {"anyOf": [_TEXT, {"type": "null"}]},
        "seal": {"type": "string", "pattern": "^sha256:[0-9a-f]{64}$"},
        "files": {
            "type": "array",
            "minItems": 1,
            "maxItems": MOST_FILES,
            "items": {
                "type": "object",
                "required": ["path", "size", "sha256"],
                "properties": {
                    "path": {"type": "string", "minLength": 1, "maxLength": 1024},
                    "size": {"type": "integer", "minimum": 0},
                    "sha256": {"type": "string", "pattern": "^[0-9a-f]{64}$"},
                },
            },
        },
    },
}


def seal(manifest: Mapping[str, Any]) -> str:
    """Digest of a manifest: it covers the name and the tags, which no file's digest does."""
    return digest.of_value({key: value for key, value in manifest.items() if key != "seal"})


def carried(version_tags: Mapping[str, str]) -> dict[str, str]:
    """The tags of a version that go with it to another server."""
    return {key: value for key, value in sorted(version_tags.items()) if key in CARRIED}


def read(folder: Path, signed: str | None = None) -> dict[str, Any]:
    """The manifest of an archive, once its form, its name, its tags and the list of its files were
    found to be allowed.

    No file but the manifest is read, so this is fast and safe on anything that somebody hands over.

    Raises:
        ConfigError: this is not an archive.
        RefusedError: the manifest asks for what an import does not do, or the folder holds
            something else than it lists; names it.
    """
    manifest = _parse(folder, signed)
    names.check(f"archive={folder}: name", manifest["name"], "export it under another name")
    _check_tags(folder, manifest)
    listed: dict[str, Mapping[str, Any]] = {}
    for file in manifest["files"]:
        path = file["path"]
        if trouble := _fault(path):
            raise RefusedError(f"archive={folder}: the manifest names {path!r}, {trouble}")
        if path in listed:
            raise RefusedError(
                f"archive={folder}: the manifest names {path!r} twice; export the version again"
            )
        listed[path] = file
    if (total := sum(file["size"] for file in manifest["files"])) > MOST_BYTES:
        raise RefusedError(
            f"archive={folder}: its files have {total} bytes, at most {MOST_BYTES} are imported"
        )
    if REPORT in listed and listed[REPORT]["size"] > LARGEST_REPORT:
        raise RefusedError(
            f"archive={folder}: {REPORT} has {listed[REPORT]['size']} bytes, at most"
            f" {LARGEST_REPORT} are read"
        )
    present = _walk(folder) - {MANIFEST, SIGNATURE}
    for path in sorted({*listed, *present}):
        if path not in present:
            raise RefusedError(f"archive={folder}: {path} is missing; export the version again")
        if path not in listed:
            raise RefusedError(
                f"archive={folder}: {path} is not in the manifest; remove it, or export the version"
                " again"
            )
        if (folder / path).stat().st_size != listed[path]["size"]:
            raise RefusedError(
                f"archive={folder}: {path} is not what was exported (its size differs); export the"
                " version again"
            )
    if REPORT not in listed:
        raise RefusedError(f"archive={folder}: {REPORT} is missing; export the version again")
    if manifest["seal"] != seal(manifest):
        raise RefusedError(
            f"archive={folder}: {MANIFEST} is not what was exported (its name, tags or list"
            " differ); export it again"
        )
    return manifest


def check(folder: Path, signed: str | None = None) -> dict[str, Any]:
    """The manifest of an archive, once every file was found to be what it says.

    Args:
        folder: the archive.
        signed: SHA-256 of the manifest as it was signed, in hexadecimal; whoever can write into the
            folder could have changed it since the signature was verified.

    Raises:
        ConfigError: this is not an archive.
        RefusedError: as :func:`read`, or a file's bytes differ; names it.
    """
    manifest = read(folder, signed)
    for file in manifest["files"]:
        if digest.sha256_of(folder / file["path"]) != file["sha256"]:
            raise RefusedError(
                f"archive={folder}: {file['path']} is not what was exported (its bytes differ);"
                " export the version again"
            )
    if (whole := digest.of_folder(folder / MODEL)) != manifest["digest"]:
        raise RefusedError(
            f"archive={folder}: the model is {whole}, the manifest says {manifest['digest']};"
            " export the version again"
        )
    return manifest


def _parse(folder: Path, signed: str | None) -> dict[str, Any]:
    expected = "a folder that `mlflow run . -e export` wrote"
    if folder.exists() and not folder.is_dir():
        raise ConfigError(
            "archive",
            str(folder),
            expected,
            "this is a file: unpack it into a folder first, if it holds one",
        )
    try:
        place = folder / MANIFEST
        if not stat.S_ISREG(place.lstat().st_mode):
            raise RefusedError(
                f"archive={folder}: {MANIFEST} is a link or a special file; export the version"
                " again"
            )
        with place.open("rb") as stream:
            data = stream.read(LARGEST_MANIFEST + 1)
        if len(data) > LARGEST_MANIFEST:
            raise RefusedError(
                f"archive={folder}: {MANIFEST} has more than {LARGEST_MANIFEST} bytes; export the"
                " version again"
            )
        if signed is not None and hashlib.sha256(data).hexdigest() != signed:
            raise RefusedError(
                f"archive={folder}: {MANIFEST} is not the one that was signed; get the"
                " archive again"
            )
        manifest: dict[str, Any] = json.loads(data)
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError("archive", str(folder), expected) from error
    if (
        isinstance(manifest, dict)
        and isinstance(manifest.get("schema"), str)
        and manifest["schema"] != SCHEMA
    ):
        raise ConfigError(
            "archive",
            str(folder),
            f"an archive of the schema {SCHEMA}, not {manifest['schema'][:100]!r}",
        )
    if wrong := best_match(Draft202012Validator(_SHAPE).iter_errors(manifest)):
        place_in = ".".join(str(part) for part in wrong.absolute_path) or "the whole"
        raise ConfigError(
            "archive",
            str(folder),
            f"{expected} ({MANIFEST}, {place_in}:"
            f" {wrong.message if len(wrong.message) < 200 else '…' + wrong.message[-150:]})",
        )
    return manifest


def _check_tags(folder: Path, manifest: dict[str, Any]) -> None:
    version_tags: dict[str, str] = manifest["tags"]
    if foreign := sorted({*version_tags} - CARRIED - LEFT_BEHIND):
        allowed = ", ".join(sorted(CARRIED))
        raise RefusedError(
            f"archive={folder}: its manifest sets the tag {foreign[0]!r}, which an import does not"
            f" accept; accepted: {allowed}"
        )
    if version_tags.get(tags.DIGEST, manifest["digest"]) != manifest["digest"]:
        raise RefusedError(
            f"archive={folder}: its tag {tags.DIGEST} says other bytes than the manifest's digest;"
            " export the version again"
        )


def _fault(path: str) -> str | None:
    """Why no archive holds a file of this path; None where one may."""
    pure = PurePosixPath(path)
    if pure.is_absolute() or ".." in pure.parts or "\\" in path:
        return "which lies outside of it; remove the entry, or export the version again"
    if pure.as_posix() != path or not path.isprintable() or len(pure.parts) > DEEPEST:
        return "which is not a plain relative path; export the version again"
    if bytecode.CACHE in pure.parts or path == f"{MODEL}/{digest.REGISTERED}":
        return "which no export writes and the model's digest does not cover; remove it"
    if path not in (REPORT, CARD, LICENCE) and pure.parts[0] != MODEL:
        return f"which is neither in {MODEL}/ nor one of {REPORT}, {CARD}, {LICENCE}; remove it"
    return None


def _walk(folder: Path) -> set[str]:
    """Paths of all files below a folder, which must be regular ones; links are not followed."""
    files: set[str] = set()
    waiting, folders = [(folder, 0)], 0
    while waiting:
        directory, level = waiting.pop()
        for entry in os.scandir(directory):
            path = Path(entry.path)
            mode = path.lstat().st_mode
            relative = path.relative_to(folder).as_posix()
            if stat.S_ISREG(mode):
                files.add(relative)
            elif stat.S_ISDIR(mode):
                folders += 1
                waiting.append((path, level + 1))
            else:
                kind = "a link" if stat.S_ISLNK(mode) else "a device, a socket or a pipe"
                raise RefusedError(
                    f"archive={folder}: {relative} is not in the manifest as {kind}, nor may it be;"
                    " replace it by a file"
                )
        if level > DEEPEST:
            raise RefusedError(
                f"archive={folder}: it holds folders in more than {DEEPEST} levels; export the"
                " version again"
            )
        if len(files) > MOST_FILES + 2 or folders > MOST_FILES:
            raise RefusedError(
                f"archive={folder}: it holds more than {MOST_FILES} files or folders; export the"
                " version again"
            )
    return files
