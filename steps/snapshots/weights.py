"""What the headers of safetensors files say; no weight is read."""

import json
import math
from pathlib import Path

from steps.snapshots.errors import SnapshotError
from steps.snapshots.manifest import Snapshot
from steps.snapshots.store import Store

INDEX = "model.safetensors.index.json"  # names the file of each tensor, where a checkpoint has several


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


def require_shards(snapshot: Snapshot, store: Store) -> None:
    """Refuse a checkpoint in several files of which one is not there.

    Raises:
        SnapshotError: the index names files that the snapshot does not hold.
    """
    names = {entry.path: entry.sha256 for entry in snapshot.files}
    if INDEX not in names:
        return
    index = json.loads(store.blob(names[INDEX]).read_text(encoding="utf-8"))
    missing = sorted(set(index["weight_map"].values()) - set(names))
    if missing:
        raise SnapshotError("model", snapshot.name, f"{INDEX} names {', '.join(missing)}, which is not there", "complete the checkpoint")
