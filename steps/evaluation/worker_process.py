"""A candidate in a fresh process of its own: what it does there does not touch the others.

A crash, a hang past the limit or more memory than allowed raises ``CandidateFailedError`` in the
evaluation, with the reason and the log's tail; the other candidates go on.
"""

import contextlib
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import mlflow

from steps.core.files import remove_tree
from steps.core.processes import Child, ChildStartError, Confinement, environment
from steps.core.redaction import redact, redact_answer
from steps.core.visible import database_files
from steps.evaluation import replies
from steps.evaluation.report import Failure
from steps.evaluation.worker_connection import WorkerConnection, WorkerGoneError

WORKER = Path(__file__).with_name("worker.py")
PEAK_RSS = Path(__file__).parents[1] / "core" / "peak_rss.py"
TAIL_LINES = 40
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


def worker_command(descriptor: int) -> list[str]:
    """What runs the worker on the other end of the socket with this file descriptor."""
    return [sys.executable, "-P", str(WORKER), str(descriptor)]


class CandidateProcess:
    """A worker process for one model; use as a context manager.

    It has no network, sees no processes and no files but those named here, gets no secrets, and
    whatever it says is redacted.

    Args:
        name: for messages.
        limits: time and memory; the time is counted only while a command runs.
        readable: folders of models that it loads.
        writable: folders that it may write to, besides an empty one of its own.
        command: program and words that talk on a socket, given its file descriptor.
    """

    def __init__(
        self,
        name: str,
        limits: Limits,
        readable: Sequence[Path] = (),
        writable: Sequence[Path] = (),
        command: Callable[[int], list[str]] = worker_command,
    ) -> None:
        self.name, self.limits, self.command = name, limits, command
        self.readable, self.writable = list(readable), list(writable)
        self.used_seconds = 0.0
        self.peak_rss = 0  # bytes, sampled
        self._killed: str | None = None
        self._child: Child | None = None
        self._connection: WorkerConnection | None = None
        self._folder: Path | None = None
        self._watch: threading.Thread | None = None
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def start(self) -> None:
        """Start the process.

        Raises:
            CandidateFailedError: it could not be started.
        """
        self._folder = Path(tempfile.mkdtemp(prefix="slm-candidate-"))
        ours, theirs = socket.socketpair()
        self._connection = WorkerConnection(ours)
        databases = {
            file
            for uri in (mlflow.get_tracking_uri(), mlflow.get_registry_uri())
            for file in database_files(uri)
        }
        with theirs:
            try:
                self._child = Child(
                    self.command(theirs.fileno()),
                    environment=own_environment(self._folder),
                    cwd=self._folder,
                    confinement=Confinement(
                        readable=(
                            WORKER.parent,
                            PEAK_RSS,
                            *(path.resolve() for path in self.readable),
                        ),
                        writable=(self._folder, *self.writable),
                        secret=tuple(databases),
                        memory_bytes=self.limits.resident_bytes,
                    ),
                    pass_fds=[theirs.fileno()],
                )
            except ChildStartError as error:
                self.close()
                raise CandidateFailedError(
                    f"its process could not be started: {error}", ""
                ) from error
        self._watch = threading.Thread(
            target=self._watch_memory,
            args=(self._child,),
            name=f"memory of {self.name}",
            daemon=True,
        )
        self._watch.start()

    @property
    def alive(self) -> bool:
        return self._child is not None and self._child.alive

    @property
    def pid(self) -> int:
        """Process id.

        Raises:
            RuntimeError: not started.
        """
        if self._child is None:
            raise RuntimeError(f"candidate {self.name!r} is not started")
        return self._child.pid

    def ask(self, command: str, *, requests: int = 1, **arguments: Any) -> Any:
        """Run one of the worker's commands and return its result.

        Args:
            command: a method of the worker.
            requests: how many times a request's limit the command may take.
            arguments: of the method.

        Raises:
            CandidateFailedError: the process died, ran out of memory, took longer than its limits,
                or replied what no worker replies.
            ModelError: the model raised; the process lives on.
        """
        with self._lock:
            if self._connection is None or self._killed:
                raise CandidateFailedError(
                    self._killed or "the process is not running", self.tail()
                )
            started = time.monotonic()
            allowed = min(
                requests * self.limits.request_seconds,
                self.limits.total_seconds - self.used_seconds,
            )
            try:
                reply = self._connection.ask(command, arguments, allowed)
                if "error" not in reply:
                    return redact_answer(replies.checked(command, reply["result"]))
                kind, said = replies.words(reply["kind"]), redact(replies.words(reply["error"]))
            except TimeoutError:
                raise self._hung(command, allowed) from None
            except WorkerGoneError:
                raise self._failed(self._reason_of_death(command)) from None
            except replies.NotFiniteError as error:
                raise ModelError(f"{command}: {error}") from error
            except ValueError as error:
                raise self.broken(command, str(error)) from error
            finally:
                self.used_seconds += time.monotonic() - started
        if kind == "MemoryError":
            raise self._failed("out of memory: " + said)
        raise ModelError(said)

    def _failed(self, reason: str) -> CandidateFailedError:
        """End the process; the error says why, or why it was ended before."""
        self.kill(reason)
        return CandidateFailedError(str(self._killed), self.tail())

    def _hung(self, command: str, allowed: float) -> CandidateFailedError:
        total = self.used_seconds + allowed >= self.limits.total_seconds
        limit = (
            f"evaluate.candidate_timeout={self.limits.total_seconds:g}"
            if total
            else (
                f"evaluate.request_timeout={self.limits.request_seconds:g}, {allowed:.0f} s for"
                " this"
            )
        )
        return self._failed(f"hung: {command!r} did not end within the limit ({limit})")

    def broken(self, command: str, why: str) -> CandidateFailedError:
        """End the process, whose reply to a command no worker of ours gives; the error to raise."""
        said = replies.words(redact(why), 300)
        return self._failed(f"broken: its reply to {command!r} is not the worker's ({said})")

    def _reason_of_death(self, command: str) -> str:
        code = self._child.wait(timeout=30) if self._child else None
        if code is None or code >= 0:
            return f"crashed: exit code {code} during {command!r}"
        name = signal.Signals(-code).name
        hint = " (the system's out-of-memory killer sends this)" if name == "SIGKILL" else ""
        return f"crashed: killed by {name}{hint} during {command!r}"

    def _watch_memory(self, child: Child) -> None:
        limit = self.limits.resident_bytes
        while child.alive:
            resident = child.resident()
            self.peak_rss = max(self.peak_rss, resident)
            if limit is not None and resident > limit:
                self.kill(
                    f"out of memory: {resident:,} resident bytes,"
                    f" evaluate.memory_limit_bytes={limit:,}"
                )
            time.sleep(SAMPLE_SECONDS)

    def kill(self, reason: str) -> None:
        """End the process at once; the first reason is what later commands fail with."""
        self._killed = self._killed or reason
        if self._child is not None:
            self._child.kill()

    def tail(self) -> str:
        """Last lines of the process' output, without secrets and the user's home folder."""
        return (
            "\n".join(self._child.tail().splitlines()[-TAIL_LINES:])
            if self._child is not None
            else ""
        )

    def close(self) -> None:
        """Hang up, wait briefly, then end the process and all that it started, whatever they do."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        if self._child is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._child.wait(timeout=5)
            self._child.kill()
        if self._watch is not None:
            self._watch.join(timeout=5)
        if self._folder is not None:
            remove_tree(self._folder)
            self._folder = None


def own_environment(folder: Path) -> dict[str, str]:
    """What a candidate's process gets: this machine's programs and threads, an empty home, and no
    tracking server.
    """
    nowhere = f"sqlite:///{folder}/none.db"
    return environment(
        {
            "HOME": str(folder),
            "TMPDIR": str(folder),
            "MLFLOW_TRACKING_URI": nowhere,
            "MLFLOW_REGISTRY_URI": nowhere,
        }
    )
