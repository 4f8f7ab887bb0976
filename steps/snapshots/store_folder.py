"""The store's folder: records of requests, locks, work under way, and room on the disk."""

import contextlib
import errno
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from steps.snapshots.errors import SnapshotError


def default_root() -> Path:
    """``$SLM_STORE``, else ``slm-promote`` in the user's cache directory."""
    if chosen := os.environ.get("SLM_STORE"):
        return Path(chosen).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "slm-promote"


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


class StoreFolder:
    """A folder that several processes of a user may work in.

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

    @contextlib.contextmanager
    def full_disk_explained(self, what: Path) -> Iterator[None]:
        """Turn the system's error into one that says what to do."""
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
