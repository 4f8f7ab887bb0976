"""What the user sees while candidates are judged: a bar with the remaining time, or plain lines
where there is no terminal.
"""

import logging
import time
from types import TracebackType
from typing import Self

log = logging.getLogger(__name__)
LINE_SECONDS = 20.0  # between two lines where there is no terminal


class Display:
    """Progress over weighted steps; the weights are seconds guessed beforehand, corrected by what
    was measured.

    Args:
        total: weight of everything.
    """

    def __init__(self, total: float) -> None:
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            Progress,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )

        self.total, self.done = total, 0.0
        self._started = self._said = time.monotonic()
        console = Console(stderr=True)
        self._bar: Progress | None = None
        if console.is_terminal:
            columns = (
                TextColumn("{task.description}"),
                BarColumn(),
                TimeElapsedColumn(),
                TextColumn("remaining"),
                TimeRemainingColumn(),
            )
            self._bar = Progress(*columns, console=console, transient=True)
            self._task = self._bar.add_task("evaluate", total=total)

    def __enter__(self) -> Self:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def say(self, phase: str) -> None:
        """Name what is being done now."""
        self._phase = phase
        if self._bar is not None:
            self._bar.update(self._task, description=phase)
        else:
            log.info("%s", phase)

    def advance(self, weight: float = 1.0) -> None:
        """Count ``weight`` as done."""
        self.done = min(self.total, self.done + weight)
        if self._bar is not None:
            self._bar.advance(self._task, weight)
            return
        now = time.monotonic()
        if now - self._said >= LINE_SECONDS and self.done:
            self._said = now
            left = (now - self._started) / self.done * (self.total - self.done)
            log.info(
                "%s: %d %% done, about %d s remaining",
                self._phase,
                100 * self.done / self.total,
                left,
            )
