"""One supervisor of child processes: evaluations' candidates, canaries and builds.

A child gets the environment variables of an allow-list, dies with this process, writes its output
to a bounded tail that is redacted when it is read, and is confined by ``confine.py`` as far as the
machine's kernel allows. What it does not allow is in ``Child.missing``.
"""

import ctypes
import json
import logging
import os
import re
import select
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Self

from steps.core import confine, process_tree, visible
from steps.core.process_tree import ResidentMemory
from steps.core.redaction import SECRET_NAMES, redact, redact_credentials

log = logging.getLogger(__name__)

NETWORK, PROCESSES, FILES = confine.LAYERS
CONFINE = Path(confine.__file__)
START_SECONDS = 60.0  # to confine itself; it takes some 50 ms on an idle machine
PROBE_SECONDS = 30.0
GRACE_SECONDS = 5.0  # for the output's end, once the process is gone
TAIL_BYTES = 65_536  # of output that are kept
PR_SET_DUMPABLE = 4  # linux/prctl.h
# What a child of ours may know of this process's environment: programs, language, threads,
# accelerators; never an address or a secret
ALLOWED = re.compile(
    r"PATH|TMPDIR|LANG|LANGUAGE|LC_\w+|TZ|USER|LOGNAME|TERM|LD_LIBRARY_PATH|VIRTUAL_ENV|SYSTEMROOT|NUMBER_OF_PROCESSORS"
    r"|(OMP|MKL|OPENBLAS|KMP|GOMP|NUMEXPR|VECLIB|CUDA|NVIDIA|HIP|ROCR|ORT|TOKENIZERS|MALLOC)_\w+"
    r"|SLM_STORE"
)
# for our own modules; never for a model, which must load as it does elsewhere
PYTHON = re.compile(r"PYTHON\w+")
QUIET = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "ORT_DISABLE_TELEMETRY": "1",
    "HF_HUB_OFFLINE": "1",  # a child works on what it was given
    "TOKENIZERS_PARALLELISM": "false",
    "PYTHONUNBUFFERED": "1",
    "PYTHONDONTWRITEBYTECODE": "1",
}
# private memory that a process may ask for beyond what it is allowed to hold: stacks of threads,
# arenas, buffers that are never touched
SPARE_BYTES, SPARE_SHARE, SPARE_PER_CPU = 1 << 30, 0.25, 1 << 25


class ChildStartError(RuntimeError):
    """A child could not be started or confined."""


@dataclass(frozen=True)
class Confinement:
    """What a child is kept from; what the machine cannot keep it from is reported, not refused.

    Attributes:
        layers: none for code that is trusted as this process is; else it loses all privileges. Of
            ``network`` (there is none), ``processes`` (it sees, signals and traces none but its
            own) and ``files`` (home and temporary folders are empty, all others read-only).
        readable: files and folders that stay visible, although the layer ``files`` would hide them.
        writable: folders it may write to.
        secret: files and folders that it finds empty, besides those of ``visible.secret``.
        memory_bytes: what it may hold; the kernel refuses more than this and ``allowance`` adds.
            None sets no limit.
    """

    layers: tuple[str, ...] = confine.LAYERS
    readable: tuple[Path, ...] = ()
    writable: tuple[Path, ...] = ()
    secret: tuple[str, ...] = ()
    memory_bytes: int | None = None


def environment(extra: Mapping[str, str] | None = None, *, python: bool = False) -> dict[str, str]:
    """This process's environment by the allow-list, without values that hold a secret, and with
    ``extra``.
    """
    kept = {
        name: value
        for name, value in os.environ.items()
        if (ALLOWED.fullmatch(name) or (python and PYTHON.fullmatch(name)))
        and not SECRET_NAMES.search(name)
        and redact_credentials(value) == value
    }
    return {**kept, **QUIET, **(extra or {})}


@cache
def absent() -> Mapping[str, str]:
    """Layers that this machine does not have, each with the reason; asked once."""
    if sys.platform != "linux":
        return dict.fromkeys(confine.LAYERS, f"{sys.platform} has no namespaces")
    command = [sys.executable, "-I", "-S", str(CONFINE), "--probe"]
    try:
        done = subprocess.run(
            command,
            env=environment(),
            capture_output=True,
            text=True,
            timeout=PROBE_SECONDS,
            check=True,
        )
        reasons: dict[str, str] = json.loads(done.stdout)
    except (OSError, subprocess.SubprocessError, ValueError) as error:
        return dict.fromkeys(confine.LAYERS, f"could not be tried: {error}")
    return {layer: why for layer, why in reasons.items() if why}


def missing(layers: Sequence[str] = confine.LAYERS) -> tuple[str, ...]:
    """What a child on this machine is not kept from, one clause each: ``network: unshare: Operation
    not permitted``.
    """
    return tuple(f"{layer}: {redact(absent()[layer])}" for layer in layers if layer in absent())


def allowance(memory_bytes: int) -> int:
    """Bytes of ``RLIMIT_DATA`` for a process that may hold ``memory_bytes``: coarser than what this
    process watches, held without it.
    """
    return (
        memory_bytes
        + max(SPARE_BYTES, int(memory_bytes * SPARE_SHARE))
        + SPARE_PER_CPU * (os.cpu_count() or 1)
    )


class Child:
    """A supervised process; use as a context manager, which ends it.

    The kernel ends it when the thread that starts it does, so start it from one that lives as long.

    Args:
        command: program and words; the program is an absolute path.
        environment: all of it; see ``environment``.
        cwd: its working directory.
        confinement: what it is kept from.
        pass_fds: file descriptors that it keeps.
        tail_bytes: how much of its output is kept.

    Raises:
        ChildStartError: it could not be started.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        environment: Mapping[str, str],
        cwd: Path,
        confinement: Confinement,
        pass_fds: Sequence[int] = (),
        tail_bytes: int = TAIL_BYTES,
    ) -> None:
        self.missing = missing(confinement.layers)
        self._tail, self._tail_bytes = bytearray(), tail_bytes
        if confinement.layers and PROCESSES in absent():
            guard_own_environment()
        said, say = os.pipe()
        limit = confinement.memory_bytes
        spec = {
            "parent": os.getpid(),
            "report": say,
            "layers": [layer for layer in confinement.layers if layer not in absent()],
            "drop": bool(confinement.layers),
            "cwd": str(cwd),
            "data_bytes": None if limit is None else allowance(limit),
            "hidden": visible.hidden(),
            "show": [*visible.of_python(), *map(str, confinement.readable)],
            "secret": [*visible.secret(os.environ), *confinement.secret],
            "write": [str(path) for path in confinement.writable],
        }
        program: list[str] = [*command]
        if sys.platform == "linux":
            program = [sys.executable, "-I", "-S", str(CONFINE), json.dumps(spec), *command]
        try:
            self.process = subprocess.Popen(
                program,
                cwd=cwd,
                env=dict(environment),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                pass_fds=[*pass_fds, say],
                start_new_session=True,
            )
        except OSError as error:
            os.close(said)
            raise ChildStartError(f"{command[0]} could not be started: {error}") from error
        finally:
            os.close(say)
        self._reader = threading.Thread(
            target=self._read, name=f"output of {self.process.pid}", daemon=True
        )
        self._reader.start()
        self.pid = self._started(said) if sys.platform == "linux" else self.process.pid
        self._memory = ResidentMemory(self.process.pid, self.pid)

    def _started(self, said: int) -> int:
        """Process id of the command, once it is confined."""
        text, deadline = b"", time.monotonic() + START_SECONDS
        with os.fdopen(said, "rb", buffering=0) as report:
            while (
                not text.endswith(b"\n")
                and select.select([report], [], [], max(0.0, deadline - time.monotonic()))[0]
            ):
                if not (data := report.read(4096)):
                    break
                text += data
        said_nothing = {"error": f"no word within {START_SECONDS:g} s"}
        start = json.loads(text) if text.endswith(b"\n") else said_nothing
        if "error" in start:
            self.kill()
            raise ChildStartError(
                f"a child process could not be confined: {redact(start['error'])}; its output:"
                f" {self.tail()}"
            )
        return int(start["pid"])

    def _read(self) -> None:
        output = self.process.stdout
        if output is None:
            return
        while data := os.read(output.fileno(), 65_536):
            self._tail += data
            if len(self._tail) > 2 * self._tail_bytes:
                del self._tail[: -self._tail_bytes]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.kill()

    @property
    def alive(self) -> bool:
        return self.process.poll() is None

    @property
    def returncode(self) -> int | None:
        """Exit code; negative where a signal ended it; None while it lives."""
        return self.process.poll()

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end, and give its exit code.

        Raises:
            subprocess.TimeoutExpired: it lives on.
        """
        return self.process.wait(timeout)

    def kill(self) -> None:
        """End it and all that it has started, whatever they do."""
        process_tree.end(self.process.pid)
        self.process.wait()
        self._reader.join(GRACE_SECONDS)
        if self.process.stdout is not None and not self._reader.is_alive():
            self.process.stdout.close()

    def resident(self) -> int:
        """Resident bytes of the process and of what it has started; 0 once it is gone."""
        return self._memory.now()

    def tail(self) -> str:
        """The end of its output, without secrets and home folder; whole once it has ended."""
        if not self.alive:
            self._reader.join(GRACE_SECONDS)
        text = redact(bytes(self._tail).decode("utf-8", "replace"))
        return text[-self._tail_bytes :].strip()


@cache
def guard_own_environment() -> None:
    """Keep this user's other processes from reading this one's memory and environment, where
    children share its user namespace.

    Root's children cannot read them without the capabilities that they lose. Neither holds for the
    processes that started this one, as far as they are the same user's: only a child in a namespace
    of its own cannot read those.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)
