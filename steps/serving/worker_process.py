"""A worker seen from the server's event loop: started, asked, and noticed when it is gone."""

import asyncio
import json
import logging
import signal
import socket
import sys
import time
from collections.abc import AsyncGenerator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import mlflow

from steps.core.files import remove_tree
from steps.core.processes import Child, ChildStartError, Confinement, environment
from steps.core.redaction import redact
from steps.core.visible import database_files
from steps.serving.errors import ApiError
from steps.serving.threads import in_thread
from steps.serving.worker_lines import Replies, capacity_of, checked, parsed

log = logging.getLogger(__name__)

WORKER = Path(__file__).with_name("worker.py")
LONGEST_LINE = 1 << 24  # bytes of one line from a worker
TAIL_LINES = 20
LATE: dict[str, Any] = {}  # stands in a queue of replies for the deadline
GRACE_SECONDS = 5.0
# The kernel ends a child when the thread that started it ends: this one never does.
_STARTER = ThreadPoolExecutor(1, "start workers")


class WorkerGoneError(Exception):
    """The worker's process has ended."""


class LoadFailedError(Exception):
    """The worker could not load the model."""


class WorkerProcess:
    """A running worker; make one with ``start``."""

    def __init__(self, child: Child, ours: socket.socket, folder: Path) -> None:
        self._child, self._socket, self._folder = child, ours, folder
        self._pending: dict[int, Replies] = {}
        self.heard = time.monotonic()  # when it sent something last
        self._number = 0
        self._reading: asyncio.Task[None] | None = None
        self._writer: asyncio.StreamWriter | None = None
        self.capacity = 1  # answers that it generates side by side
        self.gone = asyncio.Event()
        self.reason = ""  # why it is gone

    @classmethod
    async def start(
        cls,
        model: Path,
        scratch: Path,
        *,
        model_config: Mapping[str, Any],
        memory_limit_bytes: int | None,
        timeout: float,
    ) -> "WorkerProcess":
        """Start a process that loads a model.

        Args:
            model: folder of the logged model.
            scratch: an empty folder that the process may write to; removed with it.
            model_config: overrides of what the model was logged with.
            memory_limit_bytes: that the kernel and ``resident`` hold it to.
            timeout: seconds that loading may take.

        Raises:
            LoadFailedError: it could not be started, or did not load the model in time.
        """
        ours, theirs = socket.socketpair()
        loop = asyncio.get_running_loop()
        starting = loop.run_in_executor(
            _STARTER, _child, model, scratch, theirs.fileno(), memory_limit_bytes
        )
        try:
            await asyncio.wait({starting})
            theirs.close()
            child = starting.result()
        except asyncio.CancelledError:
            # the process gets the descriptor by its number: it stays open until then
            await asyncio.wait({starting})
            theirs.close()
            ours.close()
            if starting.exception() is None:
                await in_thread(starting.result().kill)
            remove_tree(scratch)
            raise
        except (ChildStartError, OSError, RuntimeError) as error:
            ours.close()
            remove_tree(scratch)
            raise LoadFailedError(f"its process cannot be started: {error}") from error
        worker = cls(child, ours, scratch)
        try:
            async with asyncio.timeout(timeout):
                await worker._open(model, model_config)
        except TimeoutError:
            await worker.stop()
            raise LoadFailedError(f"it was not loaded within {timeout:.0f} s") from None
        except (OSError, ValueError) as error:
            await worker.stop()
            raise LoadFailedError(
                f"what its process sent cannot be read ({redact(str(error))})"
            ) from error
        except BaseException:
            await worker.stop()
            raise
        return worker

    async def _open(self, model: Path, model_config: Mapping[str, Any]) -> None:
        reader, self._writer = await asyncio.open_connection(sock=self._socket, limit=LONGEST_LINE)
        self._write({"load": str(model), "model_config": dict(model_config)})
        said = parsed(await reader.readline())
        if "ready" not in said:
            raise LoadFailedError(
                redact(str(said.get("failed") or ""))
                or f"its process ended while it loaded; its log ends: {self.tail()}"
            )
        self.capacity = capacity_of(said["ready"])
        self._reading = asyncio.create_task(self._read(reader))

    @property
    def pid(self) -> int:
        return self._child.pid

    def resident(self) -> int:
        """Resident bytes of the process and of what it started."""
        return self._child.resident()

    def tail(self) -> str:
        """The last lines that it printed, without secrets."""
        return "\n".join(self._child.tail().splitlines()[-TAIL_LINES:])

    async def ask(self, row: Mapping[str, Any], deadline: float) -> AsyncGenerator[Any]:
        """What ``predict_stream`` yields for a row. Leaving the iterator cancels the answer.

        Args:
            row: of the chat contract.
            deadline: on the monotonic clock.

        Raises:
            ApiError: the model refuses the row, or fails on it.
            TimeoutError: the deadline passed before the answer was whole.
            WorkerGoneError: the process ended before that.
        """
        if self.gone.is_set():
            raise WorkerGoneError(self.reason)
        self._number += 1
        number, replies = self._number, Replies()
        self._pending[number] = replies
        ended = False
        # not asyncio.timeout: whoever reads a stream may change its task between two chunks
        alarm = asyncio.get_running_loop().call_later(
            max(deadline - time.monotonic(), 0.0), replies.put, LATE
        )
        try:
            self._write({"id": number, "row": dict(row)})
            while not ended:
                said = await replies.get()
                if said is LATE:
                    raise TimeoutError
                if said is None:
                    ended = True
                    raise WorkerGoneError(self.reason)
                ended = "chunk" not in said
                if "error" in said:
                    raise ApiError.of_model(int(said.get("status", 500)), str(said["error"]))
                if not ended:
                    yield checked(said["chunk"])
        finally:
            alarm.cancel()
            self._pending.pop(number, None)
            if not ended and not self.gone.is_set():
                self._write({"id": number, "cancel": True})

    def _write(self, value: Mapping[str, Any]) -> None:
        assert self._writer is not None  # start opens it
        self._writer.write(json.dumps(value).encode() + b"\n")

    async def _read(self, reader: asyncio.StreamReader) -> None:
        reason = ""
        try:
            while line := await reader.readline():
                said = parsed(line)
                self.heard = time.monotonic()
                number: Any = said.get("id")
                pending = self._pending.get(number)
                if pending is not None and not pending.put(said, len(line)):
                    del self._pending[number]
        except (OSError, ValueError, TypeError) as error:
            reason = f"what it sent cannot be read ({redact(str(error))})"
        finally:
            await in_thread(self._child.kill)
            self.reason = reason or self.reason or _death(self._child.returncode)
            self.gone.set()
            for pending in self._pending.values():
                pending.put(None)

    async def stop(self) -> None:
        """End the process; answers on their way fail."""
        # a socket that asyncio watches is closed through it: its number would be another's
        self._socket.close() if self._writer is None else self._writer.close()
        await in_thread(self._child.kill)
        if self._reading is not None:
            await asyncio.wait({self._reading}, timeout=GRACE_SECONDS)
            self._reading.cancel()
        self.reason = self.reason or "it was stopped"
        self.gone.set()
        await in_thread(remove_tree, self._folder)


def _child(model: Path, scratch: Path, descriptor: int, memory_limit_bytes: int | None) -> Child:
    nowhere = f"sqlite:///{scratch}/none.db"
    databases = {
        file
        for uri in (mlflow.get_tracking_uri(), mlflow.get_registry_uri())
        for file in database_files(uri)
    }
    return Child(
        [sys.executable, "-P", str(WORKER), str(descriptor)],
        environment=environment(
            {
                "HOME": str(scratch),
                "TMPDIR": str(scratch),
                "MLFLOW_TRACKING_URI": nowhere,
                "MLFLOW_REGISTRY_URI": nowhere,
            }
        ),
        cwd=scratch,
        confinement=Confinement(
            readable=(WORKER, model.resolve()),
            writable=(scratch,),
            secret=tuple(databases),
            memory_bytes=memory_limit_bytes,
        ),
        pass_fds=[descriptor],
    )


def _death(code: int | None) -> str:
    if code is not None and code < 0:
        try:
            name = signal.Signals(-code).name
        except ValueError:  # a real-time signal
            name = f"signal {-code}"
        return f"its process was ended by {name}"
    return f"its process ended with exit code {code}"
