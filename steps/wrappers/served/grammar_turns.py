"""Turns at what one caller can have at a time, shared among kinds of callers."""

import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import TEMPORARILY_UNAVAILABLE

from .fork_safety import ForkSafe


class Turns(ForkSafe):
    """Gives turns: to the kinds that wait one after the other, within a kind in order of arrival.

    Args:
        seconds: after which a caller is told to come again; he holds a thread that the server
            answers others with.
        most_waiting: callers of one kind that may wait; None for any number.
    """

    def __init__(self, seconds: float, most_waiting: int | None) -> None:
        self._seconds, self._most_waiting = seconds, most_waiting
        super().__init__()

    def renew_lock(self) -> None:
        """Take a lock that no thread holds, with nobody waiting."""
        super().renew_lock()
        self._taken = False
        # the kind whose turn is next stands first; no line is empty
        self._lines: dict[str, deque[threading.Event]] = {}

    @property
    def waiting(self) -> int:
        """How many wait."""
        with self.lock:
            return sum(map(len, self._lines.values()))

    @contextmanager
    def turn(self, kind: str) -> Iterator[None]:
        """Wait for a turn, and have it.

        Raises:
            MlflowException: too many wait, or it took too long; with status 503.
        """
        called = threading.Event()
        with self.lock:
            if self._taken:
                line = self._lines.setdefault(kind, deque())
                if self._most_waiting is not None and len(line) >= self._most_waiting:
                    raise untried("other grammars are being tried")
                line.append(called)
            else:
                self._taken = True
                called.set()
        if not called.wait(self._seconds):
            with self.lock:
                if not called.is_set():  # else it was called just now
                    self._leave(kind, called)
                    raise untried("other grammars are being tried")
        try:
            yield
        finally:
            self._call_next()

    def _leave(self, kind: str, called: threading.Event) -> None:
        line = self._lines[kind]
        line.remove(called)
        if not line:
            del self._lines[kind]

    def _call_next(self) -> None:
        with self.lock:
            if not self._lines:
                self._taken = False
                return
            kind = next(iter(self._lines))
            line = self._lines.pop(kind)
            line.popleft().set()
            if line:
                self._lines[kind] = line


def untried(reason: str) -> MlflowException:
    """Build the error of a grammar that could not be tried now."""
    return MlflowException(
        f"response_format cannot be tried now, as {reason}; try again later",
        error_code=TEMPORARILY_UNAVAILABLE,
    )
