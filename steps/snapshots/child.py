"""Run one module of this project, or of a package, in a process of its own: its memory is given back, and its crash is an error here."""

import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]  # the project root, where `python -m steps…` works
TAIL = 2000  # characters of output shown when it fails
PR_SET_PDEATHSIG = 1  # linux/prctl.h


class ChildError(RuntimeError):
    """The child ended badly.

    Attributes:
        returncode: its exit code; negative where a signal ended it.
        tail: the end of its output.
    """

    def __init__(self, command: Sequence[str], returncode: int, output: str) -> None:
        self.returncode, self.tail = returncode, output[-TAIL:].strip()
        super().__init__(f"{' '.join(command[1:4])} ended with {returncode}: {self.tail}")


def _die_with_parent() -> None:
    """Ask the kernel to end this process when its parent dies, so that no builder goes on for nobody with gigabytes of memory."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def run(module: str, *arguments: str | Path, environment: Mapping[str, str] | None = None, cwd: Path = ROOT) -> str:
    """``python -m module arguments…`` without the model hub.

    Returns:
        Its output, both streams together.

    Raises:
        ChildError: it did not end with 0.
    """
    command = [sys.executable, "-m", module, *map(str, arguments)]
    # the children work on local files: they need no token, and the tracking variables would make them touch the parent's run
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("MLFLOW_", "HF_TOKEN"))}
    env = {**inherited, "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "PYTHONUNBUFFERED": "1", **(environment or {})}
    done = subprocess.run(
        command,
        cwd=cwd,
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        check=False,
        preexec_fn=_die_with_parent,
    )
    if done.returncode:
        raise ChildError(command, done.returncode, done.stdout)
    return done.stdout
