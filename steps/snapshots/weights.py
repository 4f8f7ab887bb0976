"""What the headers of safetensors files say; no weight is read."""

import math
from pathlib import Path

from steps.snapshots.errors import SnapshotError


def parameter_count(checkpoint: Path) -> int:
    """Numbers in all tensors of a folder's safetensors files.

    Raises:
        SnapshotError: a file is not in the format, or is shorter than its header says.
    """
    from safetensors import SafetensorError, safe_open

    count = 0
    for path in sorted(checkpoint.glob("*.safetensors")):
        try:
            with safe_open(path, framework="numpy") as file:
                count += sum(math.prod(file.get_slice(name).get_shape()) for name in file.keys())  # noqa: SIM118 (it is no dict)
        except SafetensorError as error:
            raise SnapshotError("model", path.name, f"is no whole safetensors file: {error}", "save or download it again") from error
    return count
