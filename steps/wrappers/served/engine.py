"""The engine of a served model: a scheduler that is started when a request needs one."""

import weakref
from collections.abc import Callable

from .backend import Backend
from .fork_safety import ForkSafe
from .scheduler import Scheduler
from .settings import Settings


class Engine(ForkSafe):
    """Starts a scheduler for the first request, after ``close``, and in a forked child, where the
    parent's thread does not exist. Dropping the engine or leaving the process closes it.

    Args:
        load: a bound method that loads the weights; its object is held weakly, so that a model that
            is dropped drops its engine.
        settings: of the model.
    """

    def __init__(self, load: Callable[[], Backend], settings: Settings) -> None:
        super().__init__()
        self._load, self._settings = weakref.WeakMethod(load), settings
        self._scheduler: Scheduler | None = None
        # a parent process's: its threads are gone, its memory must not be freed here
        self._abandoned: list[Scheduler] = []

    def scheduler(self) -> Scheduler:
        """The running scheduler.

        Raises:
            MlflowException: the weights cannot be loaded.
        """
        if self._scheduler is not None and self._scheduler.alive:
            return self._scheduler
        with self.lock:
            if self._scheduler is not None and self._scheduler.alive:
                return self._scheduler
            if self._scheduler is not None and not self._scheduler.ours:
                self._abandoned.append(self._scheduler)
            load, settings = self._load, self._settings

            def make() -> Backend:
                method = load()
                if method is None:
                    raise RuntimeError("the model was dropped while its engine was being started")
                return method()

            self._scheduler = Scheduler(make, settings.max_queue, settings.request_timeout)
            weakref.finalize(self, self._scheduler.close)  # also runs when the interpreter exits
            return self._scheduler

    def close(self) -> None:
        """Stop and free it; safe to call twice."""
        if self._scheduler is not None:
            self._scheduler.close()
