"""Run one module of this project, or of a package, in a process of its own: its memory is given
back, and its crash is an error here.
"""

import os
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from steps.core import processes
from steps.core.processes import Child, ChildStartError, Confinement

ROOT = Path(__file__).resolve().parents[2]  # the project root, where `python -m steps…` works
TAIL = 2000  # characters of output shown when it fails
KEPT_OUTPUT = 1 << 20  # bytes of output that are returned: the end of it
# the one module that may know the network's settings, which may hold a password of an index
PIP = "pip"
OF_PIP = re.compile(
    r"PIP_\w+|((https?|all|no)_proxy)|SSL_CERT_(FILE|DIR)|REQUESTS_CA_BUNDLE|NETRC|XDG_(CONFIG|CACHE)_HOME",
    re.IGNORECASE,
)


class ChildError(RuntimeError):
    """The child ended badly.

    Attributes:
        returncode: its exit code; negative where a signal ended it.
        tail: the end of its output.
    """

    def __init__(self, command: Sequence[str], returncode: int, output: str) -> None:
        self.returncode, self.tail = returncode, output[-TAIL:].strip()
        super().__init__(f"{' '.join(command[1:4])} ended with {returncode}: {self.tail}")


def run(
    module: str,
    *arguments: str | Path,
    environment: Mapping[str, str] | None = None,
    cwd: Path = ROOT,
) -> str:
    """``python -m module arguments…`` without the model hub, and without the secrets and tracking
    server of this process.

    It is ended with this process. It may write wherever this user may, since it builds in the
    store; its code is this project's and its packages', never a model's.

    Returns:
        The end of its output, both streams together, without secrets.

    Raises:
        ChildError: it did not end with 0.
    """
    command = [sys.executable, "-m", module, *map(str, arguments)]
    kept = {"HOME": str(Path.home())}
    if module == PIP:
        kept |= {name: value for name, value in os.environ.items() if OF_PIP.fullmatch(name)}
    try:
        with Child(
            command,
            environment=processes.environment({**kept, **(environment or {})}, python=True),
            cwd=cwd,
            confinement=Confinement(layers=()),
            tail_bytes=KEPT_OUTPUT,
        ) as process:
            returncode = process.wait()
            output = process.tail()
    except ChildStartError as error:
        raise ChildError(command, 1, str(error)) from error
    if returncode:
        raise ChildError(command, returncode, output)
    return output


def last_line(output: str) -> str:
    """The last line of a child's output: of a traceback, the error itself."""
    return (output.strip().splitlines() or ["no output"])[-1].strip()[:300]
