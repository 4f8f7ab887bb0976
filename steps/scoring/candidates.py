"""A candidate in a fresh process of its own: what it does there, it does to nobody else.

A crash, a hang past the limit or more memory than allowed raises ``CandidateFailedError`` in the evaluation, with the reason and
the log's tail; the other candidates go on.
"""

import contextlib
import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from steps.scoring.report import Failure

WORKER = Path(__file__).with_name("worker.py")
TAIL_LINES = 40
DROPPED = ("PYTHONPATH", "PYTHONHOME", "MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_ID")  # the step's own
SAMPLE_SECONDS = 0.05  # how often resident memory is looked at


class CandidateFailedError(Exception):
    """A candidate's process is gone or had to be ended."""

    def __init__(self, reason: str, log_tail: str) -> None:
        super().__init__(reason)
        self.failure = Failure(reason, log_tail)


class ModelError(Exception):
    """The model raised on one request; its process lives on."""


@dataclass(frozen=True)
class Limits:
    """What one candidate may take."""

    total_seconds: float
    request_seconds: float
    resident_bytes: int | None = None


class CandidateProcess:
    """A worker process for one model; use as a context manager.

    Args:
        name: for messages and the log's file name.
        workdir: folder that gets ``logs/<name>.log``.
        limits: time and memory; the time is counted only while a command runs.
    """

    def __init__(self, name: str, workdir: Path, limits: Limits) -> None:
        self.name, self.limits = name, limits
        self.used_seconds = 0.0
        self.peak_rss = 0  # bytes, sampled
        self.log = workdir / "logs" / f"{name}.log"
        self._killed: str | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._connection: socket.socket | None = None
        self._buffer = b""
        self._folder: str | None = None
        self._watch: threading.Thread | None = None
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        self.log.parent.mkdir(parents=True, exist_ok=True)
        self._folder = tempfile.mkdtemp(prefix="slm-candidate-")
        self._connection, theirs = socket.socketpair()
        with theirs, self.log.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-P", str(WORKER), str(theirs.fileno())],
                cwd=self._folder,
                env=_environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                pass_fds=[theirs.fileno()],
                start_new_session=True,
            )
        self._watch = threading.Thread(target=self._watch_memory, name=f"memory of {self.name}", daemon=True)
        self._watch.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    @property
    def alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        """Process id.

        Raises:
            RuntimeError: not started.
        """
        if self._process is None:
            raise RuntimeError(f"candidate {self.name!r} is not started")
        return self._process.pid

    def ask(self, command: str, *, requests: int = 1, **arguments: Any) -> Any:
        """Run one of the worker's commands and return its result.

        Args:
            command: a method of the worker.
            requests: how many times a request's limit the command may take.
            arguments: of the method.

        Raises:
            CandidateFailedError: the process died, ran out of memory, or took longer than its limits.
            ModelError: the model raised; the process lives on.
        """
        with self._lock:
            if self._connection is None or self._killed:
                raise CandidateFailedError(self._killed or "the process is not running", self.tail())
            started = time.monotonic()
            allowed = min(requests * self.limits.request_seconds, self.limits.total_seconds - self.used_seconds)
            try:
                with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # a dead process is found by the read below
                    self._connection.sendall(json.dumps({"command": command, **arguments}).encode() + b"\n")
                reply = self._read(command, started + allowed, allowed)
            finally:
                self.used_seconds += time.monotonic() - started
        if "error" in reply:
            if reply["kind"] == "MemoryError":
                self._kill("out of memory: " + reply["error"])
                raise CandidateFailedError(self._killed or reply["error"], self.tail())
            raise ModelError(reply["error"])
        return reply["result"]

    def _read(self, command: str, deadline: float, allowed: float) -> dict[str, Any]:
        connection = self._connection
        if connection is None:
            raise CandidateFailedError("the process is not running", self.tail())
        while b"\n" not in self._buffer:
            wait = deadline - time.monotonic()
            if wait <= 0 or not select.select([connection], [], [], wait)[0]:
                total = self.used_seconds + allowed >= self.limits.total_seconds
                limit = (
                    f"evaluate.candidate_timeout={self.limits.total_seconds:g}"
                    if total
                    else f"evaluate.request_timeout={self.limits.request_seconds:g}, {allowed:.0f} s for this"
                )
                self._kill(f"hung: {command!r} did not end within the limit ({limit})")
                raise CandidateFailedError(str(self._killed), self.tail())
            try:
                data = connection.recv(1 << 16)
            except ConnectionResetError:
                data = b""
            if not data:
                raise CandidateFailedError(self._reason_of_death(command), self.tail())
            self._buffer += data
        line, _, self._buffer = self._buffer.partition(b"\n")
        reply: dict[str, Any] = json.loads(line)
        return reply

    def _reason_of_death(self, command: str) -> str:
        code = self._process.wait(timeout=30) if self._process else None
        if self._killed:
            return self._killed
        if code is not None and code < 0:
            name = signal.Signals(-code).name
            hint = " (the system's out-of-memory killer sends this)" if name == "SIGKILL" else ""
            reason = f"crashed: killed by {name}{hint} during {command!r}"
        else:
            reason = f"crashed: exit code {code} during {command!r}"
        self._killed = reason
        return reason

    def _watch_memory(self) -> None:
        import psutil

        limit = self.limits.resident_bytes
        try:
            process = psutil.Process(self.pid)
            while self.alive:
                resident = process.memory_info().rss
                self.peak_rss = max(self.peak_rss, resident)
                if limit is not None and resident > limit:
                    self._kill(f"out of memory: {resident:,} resident bytes, evaluate.memory_limit_bytes={limit:,}")
                time.sleep(SAMPLE_SECONDS)
        except psutil.NoSuchProcess:
            return

    def _kill(self, reason: str) -> None:
        self._killed = self._killed or reason
        if self._process is not None and self._process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)

    def tail(self) -> str:
        """Last lines of the process' log, without the user's home folder in them."""
        if not self.log.is_file():
            return ""
        lines = self.log.read_text(encoding="utf-8", errors="replace").splitlines()[-TAIL_LINES:]
        return "\n".join(lines).replace(str(Path.home()), "~")

    def close(self) -> None:
        """Hang up, wait briefly, then end the process whatever it does."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        if self._process is not None:
            try:
                self._process.wait(timeout=5)
            except subprocess.TimeoutExpired:
                self._kill("did not end when asked to")
                self._process.wait(timeout=30)
        if self._watch is not None:
            self._watch.join(timeout=5)
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None


def _environment() -> dict[str, str]:
    """This process' environment without the project's traces in it, and with the tracking server in it."""
    import mlflow

    keep = {key: value for key, value in os.environ.items() if key not in DROPPED}
    keep |= {
        "MLFLOW_TRACKING_URI": absolute(mlflow.get_tracking_uri()),
        "MLFLOW_REGISTRY_URI": absolute(mlflow.get_registry_uri()),
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "ORT_DISABLE_TELEMETRY": "1",
        "HF_HUB_OFFLINE": "1",  # a candidate must hold all that it needs
        "TOKENIZERS_PARALLELISM": "false",
        "PYTHONUNBUFFERED": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    return keep


def absolute(uri: str) -> str:
    """A store's URI without its dependence on the working directory: a candidate lives in an empty one."""
    scheme, colon, rest = uri.partition(":")
    if scheme == "sqlite" and rest.startswith("///") and not rest.startswith("////"):
        return uri if rest.startswith("///:memory:") else f"sqlite:///{Path(rest[3:]).absolute()}"
    if uri in ("databricks", "databricks-uc", "uc"):  # names of profiles, not of folders
        return uri
    if not colon or (scheme == "file" and not rest.startswith("/")):
        return (Path(rest) if colon else Path(uri)).absolute().as_uri()
    return uri
