"""Digests: of a value, of a file, of a folder, of a logged model."""

import hashlib
import json
from pathlib import Path

# Not part of what was logged: MLflow writes the one when a model is downloaded by its registry
# name, Python the other when it loads code.
VOLATILE = frozenset({"registered_model_meta", "__pycache__"})


def of_bytes(data: bytes) -> str:
    """``sha256:…`` over bytes."""
    return "sha256:" + hashlib.sha256(data).hexdigest()


def of_value(value: object) -> str:
    """``sha256:…`` over the canonical JSON of ``value``."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, default=str)
    return of_bytes(text.encode())


def sha256_of(path: Path) -> str:
    """The hexadecimal sha256 of a file's bytes."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def of_folder(folder: Path) -> str:
    """``sha256:…`` over the sorted lines ``path size sha256`` of every file below ``folder``.

    Raises:
        FileNotFoundError: the folder holds no file.
    """
    files = sorted(
        path
        for path in folder.rglob("*")
        if path.is_file() and not VOLATILE.intersection(path.parts)
    )
    if not files:
        raise FileNotFoundError(f"no file below {folder}")
    lines = "".join(
        f"{path.relative_to(folder).as_posix()} {path.stat().st_size} {sha256_of(path)}\n"
        for path in files
    )
    return of_bytes(lines.encode())
