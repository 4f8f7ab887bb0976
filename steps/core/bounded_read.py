"""Read one small file of an artifact store, whatever its size is and however slowly it comes."""

from __future__ import annotations

import atexit
import json
import os
import signal
import stat
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import mlflow
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INTERNAL_ERROR, ErrorCode
from mlflow.utils.file_utils import local_file_uri_to_path

from steps.core.artifact_places import is_local
from steps.core.errors import StepError
from steps.core.files import temporary_folder
from steps.core.redaction import redact

CHILD = Path(__file__).with_name("read_child.py")
# of one file: a report at its largest in this time comes at 2 MB/s
SECONDS = 60
# of MLflow's errors that say more than that something failed
CODES = frozenset(ErrorCode.keys()) - {ErrorCode.Name(INTERNAL_ERROR)}


class TooMuchError(StepError):
    """A file is larger, or comes more slowly, than is read."""


def read(address: str, most_bytes: int) -> bytes:
    """The bytes of a file.

    Args:
        address: where it lies, as an artifact store names it; not ``runs:/`` or ``models:/``.
        most_bytes: a larger file is refused.

    Raises:
        TooMuchError: it is larger, or takes more than ``SECONDS``; the connection is closed then,
            with the process that holds it.
        OSError: it is on this machine and cannot be read, or is not a regular file.
        mlflow.exceptions.MlflowException: the store does not hand it out.
    """
    if is_local(address):
        return _local(local_file_uri_to_path(address), address, most_bytes)
    with temporary_folder("slm-read-") as folder:
        target = folder / "file"
        answer = _child.ask(
            {
                "address": address,
                "target": str(target),
                "most_bytes": most_bytes,
                "seconds": SECONDS,
                "environment": dict(os.environ),
                "tracking_uri": mlflow.get_tracking_uri(),
            },
            address,
        )
        if answer.get("large"):
            raise _too_large(address, most_bytes)
        if "error" not in answer:
            return target.read_bytes()
    if (code := answer["code"]) in CODES:
        raise MlflowException(answer["error"], error_code=ErrorCode.Value(code))
    # in the words of MLflow's own downloads
    raise MlflowException(
        f"The following failures occurred while downloading {redact(address)}: {answer['error']}"
    )


def _local(path: str, address: str, most_bytes: int) -> bytes:
    # neither a pipe without a writer nor a link is opened
    handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(handle, "rb") as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError(f"{redact(address)} is not a regular file")
        data = file.read(most_bytes + 1)
    if len(data) > most_bytes:
        raise _too_large(address, most_bytes)
    return data


def _too_large(address: str, most_bytes: int) -> TooMuchError:
    return TooMuchError(
        f"{redact(address)} has more than {most_bytes} bytes, which are not read; evaluate again"
    )


class _Child:
    """The process that copies files, started when one is first asked for and kept."""

    def __init__(self) -> None:
        self.process: subprocess.Popen[str] | None = None
        self.lock = threading.Lock()

    def ask(self, request: dict[str, Any], address: str) -> dict[str, Any]:
        with self.lock:
            process = self.process or self._start()
            assert process.stdin is not None and process.stdout is not None, "both are pipes"
            try:
                process.stdin.write(json.dumps(request) + "\n")
                process.stdin.flush()
                line = process.stdout.readline()
            except OSError:
                line = ""
            if line:
                answer: dict[str, Any] = json.loads(line)
                return answer
            status = self.close()
        if status == -signal.SIGALRM:
            raise TooMuchError(
                f"{redact(address)} did not come within {request['seconds']} s; is the artifact"
                " store up?"
            )
        raise MlflowException(
            f"{redact(address)} could not be read: the process that reads it ended with {status}"
        )

    def _start(self) -> subprocess.Popen[str]:
        # -P: its own folder holds modules with names of others
        self.process = subprocess.Popen(
            [sys.executable, "-P", str(CHILD)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        return self.process

    def close(self) -> int | None:
        """End the process; its exit code."""
        process, self.process = self.process, None
        if process is None:
            return None
        for stream in (process.stdin, process.stdout):
            if stream is not None and not stream.closed:
                try:
                    stream.close()
                except OSError:  # it is gone, and so is what was to be sent
                    continue
        try:
            return process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            return process.wait()


_child = _Child()
atexit.register(_child.close)
