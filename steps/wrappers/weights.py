"""Brings weights into a logged model's artifacts with the fewest copies: hard links, else one copy, else one upload."""

import errno
import hashlib
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

# What file systems say that have no hard links, or not for these two files.
REFUSED_LINKS = (errno.EXDEV, errno.EPERM, errno.EMLINK, errno.ENOTSUP, errno.ENOSYS, errno.EACCES)


@dataclass(frozen=True)
class Weights:
    """A folder whose files become part of a logged model.

    Args:
        folder: where they are.
        files: names relative to it, with slashes.
        place: folder inside the logged model.
    """

    folder: Path
    files: tuple[str, ...]
    place: str

    @classmethod
    def all_in(cls, folder: Path, place: str) -> "Weights":
        """Take every file of a folder, however deep."""
        return cls(folder, tuple(sorted(file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file())), place)

    @property
    def size(self) -> int:
        """Bytes."""
        return sum((self.folder / name).stat().st_size for name in self.files)

    def checksums(self) -> dict[str, str]:
        """Digest every file: name to sha256 in hexadecimal."""
        return {name: sha256_of(self.folder / name) for name in self.files}


def sha256_of(file: Path) -> str:
    """Digest one file, read in pieces."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def local_folder(location: str) -> Path | None:
    """Read an artifact location as a folder on this machine; None when it is behind a server."""
    from mlflow.utils.file_utils import local_file_uri_to_path
    from mlflow.utils.uri import is_local_uri

    return Path(local_file_uri_to_path(location)) if is_local_uri(location) else None


def nearest_existing(folder: Path) -> Path:
    """Walk up to a folder that exists."""
    while not folder.exists():
        folder = folder.parent
    return folder


def require_space(needed: int, folder: Path, what: str) -> None:
    """Fail before anything is written where it cannot fit.

    Raises:
        OSError: with the bytes that are needed and free.
    """
    place = nearest_existing(folder)
    free = shutil.disk_usage(place).free
    if needed > free:
        raise OSError(
            errno.ENOSPC,
            f"{what} needs {needed / 1e6:,.0f} MB at {place}, where {free / 1e6:,.0f} MB are free; "
            "free some, or point the artifact store at another disk",
        )


def links_between(source: Path, target: Path) -> bool:
    """Whether files can be hard linked from one folder to another: same file system."""
    return nearest_existing(source).stat().st_dev == nearest_existing(target).stat().st_dev


def deliver(weights: Weights, location: str) -> str:
    """Put weights into the artifacts of a logged model.

    Args:
        weights: what to put there.
        location: the logged model's artifact location: a folder, or any URI MLflow can write to.

    Returns:
        How: ``linked``, ``copied`` or ``uploaded``.

    Raises:
        OSError: not enough space, said before anything is written.
    """
    target = local_folder(location)
    if target is None:
        from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

        repository = get_artifact_repository(location)
        for name in weights.files:
            parent = Path(weights.place, name).parent.as_posix()
            repository.log_artifact(str(weights.folder / name), parent)
        return "uploaded"
    if not links_between(weights.folder, target):
        require_space(weights.size, target, "logging the model")
    return place_files(weights.folder, weights.files, target / weights.place)


def place_files(source: Path, names: Sequence[str], target: Path) -> str:
    """Hard link files into a folder, or copy them where links are refused.

    Symbolic links are followed: what arrives is always a file of its own.
    """
    how = "linked"
    for position, name in enumerate(names):
        destination = target / name
        destination.parent.mkdir(parents=True, exist_ok=True)
        origin = (source / name).resolve()
        try:
            os.link(origin, destination)
        except OSError as error:
            if error.errno not in REFUSED_LINKS:
                raise
            if how == "linked":  # the first that is refused: the others will be too
                require_space(sum((source / left).stat().st_size for left in names[position:]), target, "logging the model")
            shutil.copyfile(origin, destination)
            how = "copied"
    return how
