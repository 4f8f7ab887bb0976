"""Brings weights into a logged model's artifacts: hard links, else one copy or upload."""

from dataclasses import dataclass
from pathlib import Path

from steps.core.digest import sha256_of
from steps.core.files import links_between, place_files, require_space


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
        return cls(
            folder,
            tuple(
                sorted(
                    file.relative_to(folder).as_posix()
                    for file in folder.rglob("*")
                    if file.is_file()
                )
            ),
            place,
        )

    @property
    def size(self) -> int:
        """Bytes."""
        return sum((self.folder / name).stat().st_size for name in self.files)

    def checksums(self) -> dict[str, str]:
        """Digest every file: name to sha256 in hexadecimal."""
        return {name: sha256_of(self.folder / name) for name in self.files}


def local_folder(location: str) -> Path | None:
    """Read an artifact location as a folder on this machine; None when it is behind a server."""
    from mlflow.utils.file_utils import local_file_uri_to_path
    from mlflow.utils.uri import is_local_uri

    return Path(local_file_uri_to_path(location)) if is_local_uri(location) else None


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
    return place_files(weights.folder, weights.files, target / weights.place, "logging the model")
