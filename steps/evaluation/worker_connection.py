"""Commands to a worker and its replies, one line of JSON each, over a socket that the code of a
model can write to as well.
"""

import contextlib
import json
import select
import socket
import time
from collections.abc import Mapping
from typing import Any

LONGEST_REPLY = 1 << 28  # bytes


class BrokenReplyError(ValueError):
    """Something else than the worker wrote to its socket: nothing of it can be believed any
    more.
    """


class WorkerGoneError(Exception):
    """The other end of the socket is closed."""


class WorkerConnection:
    """This side of a worker's socket."""

    def __init__(self, connection: socket.socket) -> None:
        self._socket, self._buffer = connection, b""

    def ask(self, command: str, arguments: Mapping[str, Any], seconds: float) -> dict[str, Any]:
        """Send one command and return its reply: ``result``, or ``error`` and ``kind``.

        Args:
            command: a method of the worker.
            arguments: of the method.
            seconds: that sending and replying may take together.

        Raises:
            TimeoutError: they took longer.
            BrokenReplyError: what came is not a worker's reply, or came before the command.
            WorkerGoneError: the worker has ended.
        """
        deadline = time.monotonic() + seconds
        if seconds <= 0:
            raise TimeoutError
        # the end of a process is noticed by the read that follows
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self._send(json.dumps({"command": command, **arguments}).encode() + b"\n", seconds)
        line = self._line(deadline)
        try:
            reply = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise BrokenReplyError(str(error)) from error
        if not isinstance(reply, dict) or set(reply) not in ({"result"}, {"error", "kind"}):
            raise BrokenReplyError("neither a result nor an error")
        return reply

    def _send(self, line: bytes, seconds: float) -> None:
        """A worker that answers and no longer reads would hold a plain send up for ever."""
        if self._buffer or (
            select.select([self._socket], [], [], 0)[0] and self._socket.recv(1, socket.MSG_PEEK)
        ):
            raise BrokenReplyError("it came before the command")
        self._socket.settimeout(seconds)
        self._socket.sendall(line)

    def _line(self, deadline: float) -> bytes:
        while b"\n" not in self._buffer:
            wait = deadline - time.monotonic()
            if wait <= 0 or not select.select([self._socket], [], [], wait)[0]:
                raise TimeoutError
            try:
                data = self._socket.recv(1 << 16)
            except ConnectionResetError:
                data = b""
            if not data:
                raise WorkerGoneError
            self._buffer += data
            if len(self._buffer) > LONGEST_REPLY:
                raise BrokenReplyError(f"more than {LONGEST_REPLY:,} bytes")
        line, _, self._buffer = self._buffer.partition(b"\n")
        return line

    def close(self) -> None:
        self._socket.close()
