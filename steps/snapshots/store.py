"""Content-addressed store of weights and builds: one folder, shared by all projects of a user.

    blobs/ab/abcd…      a file's bytes, named by their SHA-256, read-only
    folders/<digest>/   files under their own names, as hard links to the blobs
    records/<key>.json  what a request was answered with; written last, so a record means that
    everything before it was whole
    partial/<key>/      downloads under way, kept after a cut so that they resume
    scratch/<id>/       work under way, worthless after a kill

Every file arrives by rename on the same file system after fsync, so a kill leaves either nothing or
a whole file. Whatever is handed out is hashed in full each time (about 1 GB/s a core): a size and
mtime stamp would miss bit rot and a writer that restores the mtime.
"""

import contextlib
import errno
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from steps.core.digest import sha256_of
from steps.core.files import hard_link
from steps.snapshots.errors import DamagedError, SnapshotError
from steps.snapshots.manifest import FileEntry, Snapshot, listing_digest

CHUNK = 1 << 22  # bytes read at a time
LISTED = 3  # files that a message names


def default_root() -> Path:
    """``$SLM_STORE``, else ``slm-promote`` in the user's cache directory."""
    if chosen := os.environ.get("SLM_STORE"):
        return Path(chosen).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "slm-promote"


def _copy(source: Path, target: Path) -> tuple[int, str]:
    """Copy to disk, and return the size in bytes and the SHA-256 of what was written."""
    digest, size = hashlib.sha256(), 0
    with source.open("rb") as reading, target.open("wb") as writing:
        while chunk := reading.read(CHUNK):
            digest.update(chunk)
            size += writing.write(chunk)
        writing.flush()
        os.fsync(writing.fileno())
    return size, digest.hexdigest()


def request_key(request: Mapping[str, Any]) -> str:
    """Key of a request: SHA-256 over its canonical JSON."""
    return hashlib.sha256(
        json.dumps(request, sort_keys=True, separators=(",", ":")).encode()
    ).hexdigest()


def fsync_folder(folder: Path) -> None:
    """Make a rename inside `folder` survive a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


class Store:
    """A folder of verified bytes.

    Args:
        root: the folder; made when absent. None is `default_root`.

    Raises:
        SnapshotError: the folder cannot be made or written.
    """

    def __init__(self, root: Path | str | None = None) -> None:
        self.root = Path(root).expanduser().absolute() if root else default_root().absolute()
        try:
            for name in ("blobs", "folders", "records", "partial", "scratch", "locks"):
                (self.root / name).mkdir(parents=True, exist_ok=True)
            self._clear_abandoned()
        except OSError as error:
            raise SnapshotError(
                "store.path",
                str(self.root),
                f"cannot be used as a store: {error.strerror or error}",
                "name a folder that can be written with store.path=… or SLM_STORE",
            ) from error

    # -- reading

    def checkpoint(self, snapshot: Snapshot) -> Path:
        """Verified folder of the checkpoint's files; treat it as read-only.

        Raises:
            DamagedError: a file is missing here, or a byte of it has changed.
        """
        return self.folder(snapshot.files)

    def onnx(self, snapshot: Snapshot) -> Path | None:
        """Verified folder of the prebuilt ONNX files, or None where the snapshot has none. Raises
        as `checkpoint`.
        """
        return self.folder(snapshot.onnx_files) if snapshot.onnx_files else None

    def folder(self, files: Iterable[FileEntry]) -> Path:
        """Verified folder with exactly these files, hard-linked to their blobs.

        Raises:
            DamagedError: a blob is missing or is not what its name says.
        """
        entries = tuple(sorted(files))
        if damaged := self.damaged(entries):
            listed = ", ".join(
                f"{entry.path} (sha256 {entry.sha256})" for entry in damaged[:LISTED]
            )
            more = (
                f" and {len(damaged) - LISTED} more of {len(entries)} files"
                if len(damaged) > LISTED
                else ""
            )
            raise DamagedError(
                "store.path",
                str(self.root),
                f"missing or changed: {listed}{more}",
                "get them again: mlflow run . -e fetch_model, with the same model= override",
            )
        target = self.root / "folders" / listing_digest(entries)
        if not self._holds(target, entries):
            with self.lock(f"folder-{target.name}"):
                if not self._holds(target, entries):
                    self._materialise(target, entries)
        return target

    def blob(self, sha256: str) -> Path:
        """Where the bytes with this SHA-256 are, or would be."""
        return self.root / "blobs" / sha256[:2] / sha256

    def has(self, sha256: str) -> bool:
        """Whether the bytes are here and are still what their name says."""
        blob = self.blob(sha256)
        return blob.is_file() and sha256_of(blob) == sha256

    def damaged(self, files: Iterable[FileEntry]) -> list[FileEntry]:
        """The files whose bytes are missing here or have changed; every byte is read."""
        entries = list(files)
        with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:  # hashlib lets go of the GIL
            whole = list(pool.map(lambda entry: self.has(entry.sha256), entries))
        return [entry for entry, good in zip(entries, whole, strict=True) if not good]

    # -- writing

    def add(
        self, source: Path, path: str, expected: str | None = None, *, move: bool = False
    ) -> FileEntry:
        """Take a file in; its bytes are hashed on the way.

        Args:
            source: the file.
            path: its name in the snapshot.
            expected: the SHA-256 it must have, where one is known.
            move: give the file away instead of copying it; it must be on the store's file system.

        Raises:
            SnapshotError: the bytes are not `expected`, or the disk is full.
        """
        with self.scratch() as scratch, self._disk_full(source):
            draft = scratch / "blob"
            if move:
                source.replace(draft)
                with draft.open("rb+") as file:
                    os.fsync(file.fileno())
                size, sha256 = draft.stat().st_size, sha256_of(draft)
            else:
                size, sha256 = _copy(source, draft)
            if expected and sha256 != expected:
                raise SnapshotError(
                    "sha256",
                    expected,
                    f"{path} has sha256 {sha256}",
                    "the source serves other bytes than were pinned",
                )
            # a blob that is whole stays: the folders that link to it share its space
            if not self.has(sha256):
                # shared by hard link: writing in place would change every folder that holds it
                draft.chmod(0o444)
                blob = self.blob(sha256)
                blob.parent.mkdir(exist_ok=True)
                draft.replace(blob)
                fsync_folder(blob.parent)
        return FileEntry(path, size, sha256)

    def add_folder(self, folder: Path) -> tuple[FileEntry, ...]:
        """Take in every file below `folder`, which is on the store's file system; the files move
        away from it.
        """
        paths = sorted(path for path in folder.rglob("*") if path.is_file())
        return tuple(
            self.add(path, path.relative_to(folder).as_posix(), move=True) for path in paths
        )

    def record(self, key: str) -> str | None:
        """The text recorded under `key`, if any."""
        path = self.root / "records" / f"{key}.json"
        return path.read_text(encoding="utf-8") if path.is_file() else None

    def keep(self, key: str, text: str) -> None:
        """Record `text` under `key`: the last act of whatever made the bytes that it speaks of."""
        with self.scratch() as scratch:
            draft = scratch / "record"
            with draft.open("w", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            target = self.root / "records" / f"{key}.json"
            draft.replace(target)
            fsync_folder(target.parent)

    @contextlib.contextmanager
    def scratch(self) -> Iterator[Path]:
        """A folder of one's own on the store's file system, gone afterwards."""
        with self.lock("scratch"):
            folder = Path(tempfile.mkdtemp(dir=self.root / "scratch"))
            held = FileLock(self.root / "locks" / f"scratch-{folder.name}.lock")
            held.acquire()
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)
            held.release()
            Path(held.lock_file).unlink(missing_ok=True)

    def partial(self, key: str) -> Path:
        """Folder of a download under way; hold `lock` for the key while using it."""
        folder = self.root / "partial" / key
        folder.mkdir(exist_ok=True)
        return folder

    def lock(self, key: str) -> FileLock:
        """A lock between processes that the kernel lets go of when its holder dies."""
        return FileLock(self.root / "locks" / f"{key}.lock")

    def need_space(self, size: int, what: str) -> None:
        """Refuse before work begins what the disk cannot hold.

        Raises:
            SnapshotError: less than `size` bytes are free.
        """
        free = shutil.disk_usage(self.root).free
        if free < size:
            raise SnapshotError(
                "store.path",
                str(self.root),
                f"{what} needs {size / 1e9:.1f} GB, {free / 1e9:.1f} GB are free",
                "free some, or choose another disk with store.path=…",
            )

    # -- within

    def _materialise(self, target: Path, entries: tuple[FileEntry, ...]) -> None:
        with self.scratch() as scratch, self._disk_full(target):
            draft = scratch / "folder"
            for entry in entries:
                path = draft / entry.path
                path.parent.mkdir(parents=True, exist_ok=True)
                if not hard_link(self.blob(entry.sha256), path):
                    shutil.copyfile(self.blob(entry.sha256), path)
            if target.exists():
                target.replace(scratch / "old")
            draft.replace(target)
            fsync_folder(target.parent)

    def _holds(self, folder: Path, entries: tuple[FileEntry, ...]) -> bool:
        """Whether `folder` has these files and no other; the blobs are taken as verified."""
        if not folder.is_dir():
            return False
        found = {
            path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir()
        }
        return found == {entry.path for entry in entries} and all(
            (folder / entry.path).samefile(self.blob(entry.sha256))
            or sha256_of(folder / entry.path) == entry.sha256
            for entry in entries
        )

    def _clear_abandoned(self) -> None:
        """Remove what killed processes left in ``scratch/``: the kernel has let go of their
        locks.
        """
        with self.lock("scratch"):
            for folder in (self.root / "scratch").iterdir():
                guard = FileLock(self.root / "locks" / f"scratch-{folder.name}.lock", timeout=0)
                try:
                    with guard:
                        shutil.rmtree(folder, ignore_errors=True)
                except Timeout:
                    continue  # its owner lives
                Path(guard.lock_file).unlink(missing_ok=True)

    @contextlib.contextmanager
    def _disk_full(self, what: Path) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            raise SnapshotError(
                "store.path",
                str(self.root),
                f"the disk is full while writing {what.name}",
                "free some, or choose another with store.path=…",
            ) from error
