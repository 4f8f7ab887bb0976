"""Sizes from the headers of safetensors files; no weight is read.

Format: an unsigned little-endian 64-bit length, then that many bytes of JSON naming each tensor's dtype, shape and offsets
(https://github.com/huggingface/safetensors#format).
"""

import json
import math
import struct
from pathlib import Path


def parameter_count(checkpoint: Path) -> int:
    """Numbers of all tensors in a folder's safetensors files."""
    return sum(_count(path) for path in checkpoint.glob("*.safetensors"))


def _count(path: Path) -> int:
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(length))
    return sum(math.prod(tensor["shape"]) for name, tensor in header.items() if name != "__metadata__")
