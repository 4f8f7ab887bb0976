"""The machine that timings were taken on."""

import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import psutil

PACKAGES = ("mlflow", "transformers", "torch", "onnxruntime-genai", "onnxruntime")


def describe() -> dict[str, Any]:
    """Processor, cores, memory, system and package versions; no host or user name."""
    return {
        "processor": _processor(),
        "cores": psutil.cpu_count(logical=False) or psutil.cpu_count() or 0,
        "threads": psutil.cpu_count() or 0,
        "memory_bytes": psutil.virtual_memory().total,
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "packages": packages(),
    }


def packages() -> dict[str, str]:
    """Versions of the installed packages that make an answer what it is."""
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return versions


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
