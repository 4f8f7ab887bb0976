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

import hashlib
import os
import shutil
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from steps.core.digest import sha256_of
from steps.core.files import hard_link
from steps.snapshots.errors import DamagedError, SnapshotError
from steps.snapshots.manifest import FileEntry, Snapshot, listing_digest
from steps.snapshots.store_folder import StoreFolder, fsync_folder

CHUNK = 1 << 22  # bytes read at a time
LISTED = 3  # files that a message names


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


class Store(StoreFolder):
    """A folder of verified bytes; arguments and errors are those of :class:`StoreFolder`."""

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
                "get them again: mlflow run . -e fetch_model"
                " --env-manager local, with the same model= override",
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
        with self.scratch() as scratch, self.full_disk_explained(source):
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

    def _materialise(self, target: Path, entries: tuple[FileEntry, ...]) -> None:
        with self.scratch() as scratch, self.full_disk_explained(target):
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
        present = {
            path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir()
        }
        return present == {entry.path for entry in entries} and all(
            (folder / entry.path).samefile(self.blob(entry.sha256))
            or sha256_of(folder / entry.path) == entry.sha256
            for entry in entries
        )
