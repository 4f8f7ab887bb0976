"""The files of a logged model: whether they are its own, and as they were logged."""

import hashlib
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import DATA_LOSS, INVALID_STATE

SHA256 = re.compile(r"[0-9a-f]{64}")


def damaged_file(name: str, problem: str) -> MlflowException:
    """Build the error of a file that is not as it was logged."""
    return MlflowException(
        f"damaged model: {name} {problem}; log it again or fetch the artifacts anew",
        error_code=DATA_LOSS,
    )


def not_portable(path: Path) -> MlflowException:
    """Build the error of a model that cannot be pickled, or unpickled, without its files."""
    return MlflowException(
        f"the model cannot be pickled to another process: {path} is not there; pass its URI instead"
        " and call mlflow.pyfunc.load_model in that process",
        error_code=INVALID_STATE,
    )


def require_own_files(folder: Path, root: Path) -> None:
    """Refuse links out of a logged model, as evaluation and canary do: what they point at may
    change while the model does not.

    Args:
        folder: of the weights.
        root: of the logged model.

    Raises:
        MlflowException: naming the first link to a file elsewhere, to a folder or to nothing.
    """
    inside = root.resolve()
    for place, folders, files in os.walk(folder):
        for name in sorted([*folders, *files]):
            path = Path(place, name)
            if not path.is_symlink():
                continue
            target = path.resolve()
            if path.is_file() and target.is_relative_to(inside):
                continue
            kind = "out of the model's folder" if path.is_file() else "to a folder or to nothing"
            raise damaged_file(
                path.relative_to(folder).as_posix(),
                f"is a link {kind}, to {target}, not a file; put the file itself there",
            )


def read_checksums(file: Path) -> dict[str, str]:
    """Read the sha256 of every file, by its name, that were written when the model was logged.

    Raises:
        MlflowException: the file is missing, or does not hold them.
    """
    cure = ", or load with model_config={'verify_checksums': False}"
    try:
        checksums = json.loads(file.read_text("utf-8"))
    except OSError as error:
        problem = f"cannot be read ({error.strerror or type(error).__name__})"
        raise damaged_file(file.name, f"{problem}{cure}") from error
    except (ValueError, RecursionError) as error:
        raise damaged_file(file.name, f"is not JSON ({error}){cure}") from error
    if not isinstance(checksums, Mapping) or not checksums:
        raise damaged_file(file.name, f"does not hold the sha256 of files by name{cure}")
    for name, digest in checksums.items():
        below = PurePosixPath(name)
        if (
            not isinstance(digest, str)
            or not SHA256.fullmatch(digest)
            or below.is_absolute()
            or ".." in below.parts
        ):
            shown = f"{name}={digest!r}"[:200]
            raise damaged_file(
                file.name, f"holds {shown}, not a file of the model with its sha256{cure}"
            )
    return dict(checksums)


def verify(folder: Path, checksums: Mapping[str, str]) -> None:
    """Compare every file with the sha256 it was logged with.

    Raises:
        MlflowException: naming the first file that is missing or differs.
    """
    for name, expected in sorted(checksums.items()):
        file = folder / name
        if not file.exists():
            raise damaged_file(name, "is missing")
        with file.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
        if digest != expected:
            raise MlflowException(
                f"damaged model: {name} has sha256 {digest}, logged was {expected}; fetch the"
                " artifacts anew",
                error_code=DATA_LOSS,
            )
