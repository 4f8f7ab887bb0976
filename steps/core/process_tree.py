"""A child process and all that it has started: the memory that they hold, and their end."""

import contextlib
import os
import signal
import time

import psutil

LOOK_SECONDS = 0.5  # between two looks for the processes that a child has started


def descendants(pid: int) -> list[psutil.Process]:
    """What a process has started, and what that has started; none once it is gone."""
    try:
        return psutil.Process(pid).children(recursive=True)
    except psutil.Error:
        return []


def end(pid: int) -> None:
    """Kill the leader of a process group, its group and its descendants, whatever they do."""
    family = descendants(pid)
    with contextlib.suppress(ProcessLookupError, PermissionError):
        # also where the process is gone and others of its group are not
        os.killpg(pid, signal.SIGKILL)
    for process in family:
        with contextlib.suppress(psutil.Error):
            process.kill()


class ResidentMemory:
    """Resident bytes of a command and, looked for more rarely, of what it has started.

    With the layer ``processes``, a process that detached itself belongs to the first process of the
    namespace, so it is counted too. Without the layer it is not seen.

    Args:
        started: the process that was started: the command, or one that supervises it.
        command: the command.
    """

    def __init__(self, started: int, command: int) -> None:
        self.started, self.command = started, command
        # when the others were looked for, on the monotonic clock, and what they held
        self._looked, self._others = -LOOK_SECONDS, 0

    def now(self) -> int:
        """Bytes at this moment; 0 once the command is gone."""
        if time.monotonic() - self._looked >= LOOK_SECONDS:
            self._others = sum(map(_resident, self._started_by_command()))
            self._looked = time.monotonic()
        own = _resident(self.command)
        return own + self._others if own else 0

    def _started_by_command(self) -> list[int]:
        """Without the supervisors: the process outside of the namespace and its first one, which is
        the command's parent.
        """
        own = {self.started, self.command}
        with contextlib.suppress(psutil.Error):
            own.add(psutil.Process(self.command).ppid())
        return [process.pid for process in descendants(self.started) if process.pid not in own]


def _resident(pid: int) -> int:
    try:
        return int(psutil.Process(pid).memory_info().rss)
    except psutil.Error:
        return 0
