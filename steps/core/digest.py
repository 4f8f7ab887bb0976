"""Digests: of a value, of a file, of a folder, of a logged model."""

import hashlib
import json
import os
import stat
from pathlib import Path

from steps.core import bytecode
from steps.core.errors import StepError

# MLflow writes it at the top of a model that is downloaded by its registry name; it is not part of
# what was logged
REGISTERED = "registered_model_meta"
DEEPEST = 64  # folders in a path; a logged model has a handful


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

    Left out are the top-level file ``registered_model_meta`` and bytecode that holds what this
    Python makes of the source beside it; any other bytecode is a file as any other.

    Raises:
        FileNotFoundError: the folder holds no file.
        StepError: it holds something whose bytes would not be covered.
    """
    every = files_of(folder)
    left_out = {folder / REGISTERED, *bytecode.written_by_python(folder, every)}
    files = [path for path in every if path not in left_out]
    if not files:
        raise FileNotFoundError(f"no file below {folder}")
    lines = "".join(
        f"{path.relative_to(folder).as_posix()} {path.stat().st_size} {sha256_of(path)}\n"
        for path in files
    )
    return of_bytes(lines.encode())


def files_of(folder: Path, *, links_outside: bool = True) -> list[Path]:
    """All files below a folder, sorted.

    Args:
        folder: to look at.
        links_outside: whether links to files that lie elsewhere are taken as files; else they are
            refused, since what they point at may change while the folder does not.

    Raises:
        StepError: it holds a device, a socket, a pipe, a link to a folder or to nothing, or too
            many levels: names the first.
    """
    root, files = folder.resolve(), []
    waiting = [(folder, 0)]
    while waiting:
        directory, level = waiting.pop()
        if level > DEEPEST:
            raise StepError(f"{folder}: it holds folders in more than {DEEPEST} levels")
        with os.scandir(directory) as entries:
            inside = list(entries)
        for entry in inside:
            path = Path(entry.path)
            if entry.is_dir(follow_symlinks=False):
                waiting.append((path, level + 1))
                continue
            outside = entry.is_symlink() and not path.resolve().is_relative_to(root)
            if not path.is_file() or (outside and not links_outside):
                kind = "a link" if entry.is_symlink() else _kind(path)
                raise StepError(
                    f"{folder}: {path.relative_to(folder).as_posix()} is {kind}, whose bytes no"
                    " digest covers; replace it by the file or the folder itself, or remove it"
                )
            files.append(path)
    return sorted(files)


def foreign_bytecode(folder: Path) -> list[str]:
    """Paths of what lies in the ``__pycache__`` folders below a folder and is not what this Python
    makes of the source beside it.
    """
    files = files_of(folder)
    inside = [path for path in files if bytecode.CACHE in path.relative_to(folder).parts]
    own = bytecode.written_by_python(folder, files) if inside else frozenset()
    return [path.relative_to(folder).as_posix() for path in inside if path not in own]


def about_bytecode(folder: Path) -> str:
    """A clause that names foreign bytecode in a logged model and the cure; empty where there is
    none.
    """
    paths = foreign_bytecode(folder)
    if not paths:
        return ""
    more = f" and {len(paths) - 1} more" if len(paths) > 1 else ""
    return (
        f"; it holds bytecode that is not what this Python makes of the source beside it"
        f" ({paths[0]}{more}): delete that in the artifact store (rm -r …/__pycache__), or log the"
        " model again"
    )


def _kind(path: Path) -> str:
    return "a device, a socket or a pipe" if stat.S_IFMT(path.lstat().st_mode) else "no file"
