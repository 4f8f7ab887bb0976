"""What the headers of safetensors files say; no weight is read."""

import math
from collections.abc import Mapping
from pathlib import Path

from steps.snapshots.errors import SnapshotError

POINTER = b"version https://git-lfs"  # how the file begins that git leaves in place of a large one


def parameter_count(checkpoint: Path) -> int:
    """Numbers in all tensors of a folder's safetensors files.

    Raises:
        SnapshotError: a file is not in the format, or is shorter than its header says.
    """
    return numbers({path.name: path for path in sorted(checkpoint.glob("*.safetensors"))})


def numbers(files: Mapping[str, Path]) -> int:
    """Numbers in all tensors of safetensors files.

    Args:
        files: where each is, by the name that messages use.

    Raises:
        SnapshotError: a file is not in the format, or is shorter than its header says.
    """
    from safetensors import SafetensorError, safe_open

    count = 0
    for name, path in files.items():
        try:
            with safe_open(path, framework="numpy") as file:
                count += sum(math.prod(file.get_slice(key).get_shape()) for key in file.keys())  # noqa: SIM118 (it is not a dict)
        except SafetensorError as error:
            with path.open("rb") as start:
                if start.read(len(POINTER)) == POINTER:
                    raise SnapshotError(
                        "model",
                        name,
                        "is git's pointer to a file that was not downloaded",
                        "git lfs pull",
                    ) from error
            raise SnapshotError(
                "model",
                name,
                f"is not a whole safetensors file: {error}",
                "save or download it again",
            ) from error
    return count
