"""Files and folders: placed without a second copy where the file system allows it, and removed."""

import contextlib
import errno
import logging
import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path

log = logging.getLogger(__name__)

# What file systems say that have no hard links, or not for these two files.
REFUSED_LINKS = (errno.EXDEV, errno.EPERM, errno.EMLINK, errno.ENOTSUP, errno.ENOSYS, errno.EACCES)


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


def hard_link(source: Path, target: Path) -> bool:
    """Hard link a file; False where the file system refuses links, so that it must be copied."""
    try:
        os.link(source, target)
    except OSError as error:
        if error.errno not in REFUSED_LINKS:
            raise
        return False
    return True


def place_files(source: Path, names: Sequence[str], target: Path, what: str) -> str:
    """Hard link files into a folder, or copy them where links are refused.

    Symbolic links are followed: what arrives is always a file of its own.
    """
    how = "linked"
    for position, name in enumerate(names):
        destination = target / name
        destination.parent.mkdir(parents=True, exist_ok=True)
        origin = (source / name).resolve()
        if not hard_link(origin, destination):
            if how == "linked":  # the first that is refused: the others will be too
                require_space(
                    sum((source / left).stat().st_size for left in names[position:]), target, what
                )
            shutil.copyfile(origin, destination)
            how = "copied"
    return how


@contextlib.contextmanager
def temporary_folder(prefix: str) -> Iterator[Path]:
    """A folder that is removed at the end, whatever somebody's code has put into it."""
    folder = Path(tempfile.mkdtemp(prefix=prefix))
    try:
        yield folder
    finally:
        remove_tree(folder)


def remove_tree(folder: Path) -> None:
    """Remove a folder of any depth; what cannot be removed is logged and stays.

    ``shutil.rmtree`` of Python 3.11 calls itself for each level, and a path of many levels is
    longer than the system takes. Here a folder's own folders are moved up to the top before it is
    removed, so that no path has more than three levels.
    """
    try:
        while _flatten(folder):
            pass
        folder.rmdir()
    except FileNotFoundError:
        return
    except OSError as error:
        log.warning("%s could not be removed: %s", folder, error)


def _flatten(top: Path) -> bool:
    """Remove the files in a folder and one level of its folders; whether anything was there."""
    some = False
    for entry in list(os.scandir(top)):
        some = True
        if not entry.is_dir(follow_symlinks=False):
            Path(entry.path).unlink()
            continue
        Path(entry.path).chmod(0o700)  # its owner may have closed it
        for inner in list(os.scandir(entry.path)):
            if inner.is_dir(follow_symlinks=False):
                Path(inner.path).chmod(0o700)  # a folder that is moved is written to
                Path(inner.path).rename(top / uuid.uuid4().hex)
            else:
                Path(inner.path).unlink()
        Path(entry.path).rmdir()
    return some
