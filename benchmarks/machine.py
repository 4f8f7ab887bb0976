"""What the figures were measured on."""

import os
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil

from steps.wrappers.flavor import providing

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
        "processors": os.cpu_count(),
        "memory_bytes": psutil.virtual_memory().total,
        "system": platform.platform(),
        "python": platform.python_version(),
        "load_average": [round(value, 2) for value in os.getloadavg()],
        "packages": {name: version(name) for name in map(providing, PACKAGES)},
    }


def _lines(file: Path) -> list[str]:
    return file.read_text().splitlines() if file.exists() else []
