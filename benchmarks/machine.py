"""What the figures were measured on."""

import os
import platform
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil

from steps.wrappers.flavor import providing

# the widest that a processor has decides which kernels a runtime takes: flag and name, widest first
INSTRUCTION_SETS = (
    ("amx_int8", "AMX"),
    ("avx512_vnni", "AVX-512 VNNI"),
    ("avx512f", "AVX-512"),
    ("avx_vnni", "AVX-VNNI"),
    ("avx2", "AVX2"),
    ("i8mm", "NEON i8mm"),
    ("asimddp", "NEON dot product"),
)
PACKAGES = ("mlflow", "onnxruntime-genai", "onnxruntime", "torch", "transformers")


def describe() -> dict[str, Any]:
    """Processor, memory, versions, and how busy the machine was: a load above the number of
    processors spoils the figures.
    """
    model = next(
        (
            line.split(":")[1].strip()
            for line in _lines(Path("/proc/cpuinfo"))
            if line.startswith("model name")
        ),
        platform.processor(),
    )
    return {
        "processor": model,
        "instruction_set": instruction_set(_lines(Path("/proc/cpuinfo"))),
        "processors": os.cpu_count(),
        "memory_bytes": psutil.virtual_memory().total,
        "system": platform.platform(),
        "python": platform.python_version(),
        "load_average": [round(value, 2) for value in os.getloadavg()],
        "packages": {name: version(name) for name in map(providing, PACKAGES)},
    }


def instruction_set(cpuinfo: Sequence[str]) -> str:
    """The widest instruction set that /proc/cpuinfo names; without one, the architecture."""
    flags = {
        flag
        for line in cpuinfo
        if line.partition(":")[0].strip() in ("flags", "Features")
        for flag in line.partition(":")[2].split()
    }
    return next((name for flag, name in INSTRUCTION_SETS if flag in flags), platform.machine())


def _lines(file: Path) -> list[str]:
    return file.read_text().splitlines() if file.exists() else []
