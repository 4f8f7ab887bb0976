"""What the user sees while candidates are evaluated: a bar with the remaining time, or plain lines
where there is no terminal.
"""

import logging
import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

log = logging.getLogger(__name__)
LINE_SECONDS = 20.0  # between two lines where there is no terminal
SPEED_SECONDS = 3600.0  # that the speed is a mean over, as steps are of different weight


class Display:
    """Progress over weighted steps; the weights are seconds guessed beforehand, corrected by what
    was measured.

    Args:
        total: weight of everything.
    """

    def __init__(self, total: float) -> None:
        console = Console(stderr=True)
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TimeElapsedColumn(),
            TextColumn("remaining"),
            TimeRemainingColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
            speed_estimate_period=SPEED_SECONDS,
        )
        self._progress.add_task("evaluate", total=total)
        (self._task,) = self._progress.tasks
        self._said = time.monotonic()

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._progress.stop()

    def say(self, phase: str) -> None:
        """Name what is being done now."""
        self._progress.update(self._task.id, description=phase)
        if self._progress.disable:
            log.info("%s", phase)

    def advance(self, weight: float = 1.0) -> None:
        """Count ``weight`` as done."""
        self._progress.advance(self._task.id, weight)
        left = self._task.time_remaining
        if not self._progress.disable or left is None:
            return
        if time.monotonic() - self._said >= LINE_SECONDS:
            self._said = time.monotonic()
            done = self._task.percentage
            log.info(
                "%s (the evaluation is %d %% done, about %d s remain)",
                self._task.description,
                done,
                left,
            )
