"""One thread that owns the engine; every other thread queues its jobs here."""

import logging
import math
import os
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import (
    INTERNAL_ERROR,
    REQUEST_LIMIT_EXCEEDED,
    TEMPORARILY_UNAVAILABLE,
)

from .answer import AnswerText
from .contract import Request

LOG = logging.getLogger(__name__)

# seconds between looks at those who wait: whether their time is up or their reader left
SWEEP = 0.5
# seconds an idle engine waits for requests that are being tokenised, to batch them with those that
# wait
GATHER = 0.01


def broken(error: Exception) -> MlflowException:
    """Build the error of one answer that the engine could not give; the trace goes to the log
    alone, as clients read the error.
    """
    LOG.error("an answer failed in the engine", exc_info=error)
    reason = (str(error).splitlines() or [""])[0][:200] or type(error).__name__
    return MlflowException(
        f"the engine could not finish this answer: {reason}", error_code=INTERNAL_ERROR
    )


@dataclass(eq=False)
class Job:
    """One answer to be generated.

    Args:
        ids: prompt token ids.
        request: settings of the answer.
        seed: of the random stream; ignored when greedy.
        text: assembles the answer.
        out: where ``(index, kind, value)`` goes: kind ``text`` for streams, then ``answer`` or
            ``error``.
        deadline: on the monotonic clock, in seconds; the driver's own timeout can only bring it
            nearer.
    """

    ids: list[int]
    request: Request
    seed: int
    text: AnswerText
    out: "queue.SimpleQueue[tuple[int, str, Any]]"
    deadline: float = math.inf
    index: int = 0
    streams: bool = False
    tokens: int = 0
    cached_tokens: int = 0
    cancelled: threading.Event = field(default_factory=threading.Event)
    failure: MlflowException | None = None

    def fail(self, error: MlflowException) -> None:
        """Mark a job that cannot be begun or finished, with an error that no other job shares; the
        driver tells its caller.
        """
        self.failure = error

    def restart(self) -> None:
        """Forget what was generated, to begin again elsewhere."""
        self.tokens = 0
        self.text.restart()


class Core(Protocol):
    """A model that generates for several jobs, step by step. Only the driver's thread calls it.

    What goes wrong with one job must not raise: ``Job.fail``, and in ``step`` the finish reason
    ``error``. What raises ends the engine and every answer in it.
    """

    def room(self) -> int:
        """Jobs that may still be started."""

    def busy(self) -> bool:
        """Whether any started job is unfinished."""

    def start(self, jobs: list[Job]) -> None:
        """Begin jobs that came together; those that cannot be begun are failed and forgotten."""

    def step(self) -> Iterable[tuple[Job, int | None, str | None]]:
        """Advance; yield ``(job, token, finish reason)`` for what happened: a token, an end, or
        both.
        """

    def stop(self, job: Job) -> None:
        """Drop a job that has not finished; unknown jobs are none of its business."""

    def close(self) -> None:
        """Give everything back."""


class Driver:
    """Queues jobs and feeds a core from one thread.

    The queue is bounded and first come, first served. A job past its deadline or whose reader left
    is dropped at the next token.

    Args:
        make: builds the core, in the driver's thread.
        max_queue: jobs that may wait.
        timeout: seconds a job may take from when it is queued.
    """

    def __init__(self, make: Callable[[], Core], max_queue: int, timeout: float) -> None:
        self._make, self._max_queue, self._timeout = make, max_queue, timeout
        self._swept = time.monotonic()
        self._waiting: deque[Job] = deque()
        self._wake = threading.Condition()
        self._closing = False
        self._arriving = 0
        self._pid = os.getpid()
        self._failed: str | None = None  # why no job is taken any more
        self.core: Core  # set by the thread, which alone calls it
        ready: queue.SimpleQueue[BaseException | None] = queue.SimpleQueue()
        self._thread = threading.Thread(
            target=self._run, args=(ready,), name="slm-driver", daemon=True
        )
        self._thread.start()
        error = ready.get()
        if error is not None:
            raise error

    @property
    def ours(self) -> bool:
        """Whether this process started it; a forked child holds a copy without its thread."""
        return self._pid == os.getpid()

    @property
    def alive(self) -> bool:
        """Whether it can take jobs."""
        return self.ours and self._thread.is_alive() and not self._closing

    @property
    def answering(self) -> bool:
        """Whether those who wait will hear from it: its thread tells everybody before it ends."""
        return self.ours and self._thread.is_alive()

    @contextmanager
    def arriving(self) -> Iterator[None]:
        """Tell the thread that jobs are on their way, so that it may wait a moment to batch them
        with others.
        """
        with self._wake:
            self._arriving += 1
        try:
            yield
        finally:
            with self._wake:
                self._arriving -= 1
                self._wake.notify_all()

    def submit(self, jobs: list[Job], *, patiently: bool = False) -> None:
        """Queue jobs, all or none; their time runs from here.

        Args:
            jobs: at most ``max_queue``.
            patiently: wait for room, as the later rows of a large frame do, instead of being
                refused.

        Raises:
            MlflowException: the queue is full, or the engine died.
        """
        with self._wake:
            if patiently:
                self._wake.wait_for(
                    lambda: (
                        self._closing
                        or self._failed
                        or len(self._waiting) + len(jobs) <= self._max_queue
                    )
                )
            if self._failed is not None:
                raise MlflowException(self._failed, error_code=INTERNAL_ERROR)
            if self._closing:
                raise MlflowException(
                    "the model is being closed", error_code=TEMPORARILY_UNAVAILABLE
                )
            if len(self._waiting) + len(jobs) > self._max_queue:
                raise MlflowException(
                    f"{len(self._waiting)} requests wait already and max_queue is"
                    f" {self._max_queue}; try again later, or raise max_queue in the model_config",
                    error_code=REQUEST_LIMIT_EXCEEDED,
                )
            for job in jobs:
                job.deadline = min(job.deadline, time.monotonic() + self._timeout)
            self._waiting.extend(jobs)
            self._wake.notify_all()

    def close(self) -> None:
        """Stop the thread and free the core; safe to call twice and in a forked child."""
        if not self.ours:
            return
        with self._wake:
            self._closing = True
            self._wake.notify_all()
        if self._thread is not threading.current_thread():
            self._thread.join(timeout=60)

    def _run(self, ready: "queue.SimpleQueue[BaseException | None]") -> None:
        try:
            core = self._make()
        except BaseException as error:  # noqa: BLE001 - handed to the thread that waits for it
            ready.put(error)
            return
        self.core = core
        ready.put(None)
        active: dict[int, Job] = {}
        try:
            while self._turn(core, active):
                pass
        except Exception as error:
            LOG.exception("the engine failed")
            # every waiting caller must hear of it
            self._fail(active, f"the engine failed: {error}")
        finally:
            core.close()
            self._fail(active, "the model was closed")

    def _turn(self, core: Core, active: dict[int, Job]) -> bool:
        with self._wake:
            while not self._closing and not self._waiting and not core.busy():
                self._wake.wait()
            if not core.busy():
                self._wake.wait_for(lambda: self._closing or not self._arriving, timeout=GATHER)
            if self._closing:
                return False
            if time.monotonic() - self._swept > SWEEP:
                self._swept = time.monotonic()
                self._waiting = deque(job for job in self._waiting if not self._dropped(job))
            taken = [self._waiting.popleft() for _ in range(min(core.room(), len(self._waiting)))]
            if taken:
                self._wake.notify_all()  # there is room in the queue
        fresh = [job for job in taken if not self._dropped(job)]
        active.update((id(job), job) for job in fresh)
        if fresh:
            core.start(fresh)
        for job in list(active.values()):  # one that was begun again among the fresh may fail too
            if job.failure is not None:
                self._end(active, job, "error", job.failure)
        spoken = False
        for job, token, reason in core.step():
            spoken = self._advance(core, active, job, token, reason) or spoken
        if spoken:
            # lets go of the GIL, which the next step holds: readers would get every piece a token
            # late
            time.sleep(0)
        for job in list(active.values()):
            if self._dropped(job):
                core.stop(job)
                active.pop(id(job), None)
        return True

    def _advance(
        self, core: Core, active: dict[int, Job], job: Job, token: int | None, reason: str | None
    ) -> bool:
        """Take what a step did for a job; returns whether somebody has something to read."""
        if id(job) not in active:
            return False
        spoken = reason is not None
        if token is not None:
            job.tokens += 1
            # an end token is not text, special or not
            piece = job.text.add(token) if reason != "stop" else None
            if piece and job.streams:
                job.out.put((job.index, "text", piece))
                spoken = True
            if job.text.stopped and reason is None:
                core.stop(job)
                reason, spoken = "stop", True
        if reason == "error":
            failure = job.failure or MlflowException(
                "the engine could not finish this answer", error_code=INTERNAL_ERROR
            )
            self._end(active, job, "error", failure)
        elif reason is not None:
            rest = job.text.finish()
            if rest and job.streams:
                job.out.put((job.index, "text", rest))
            self._end(active, job, "answer", job.text.answer(reason, job.tokens, job.cached_tokens))
        return spoken

    def _dropped(self, job: Job) -> bool:
        if job.cancelled.is_set():
            job.out.put(
                (
                    job.index,
                    "error",
                    MlflowException(
                        "the request was abandoned", error_code=TEMPORARILY_UNAVAILABLE
                    ),
                )
            )
            return True
        if time.monotonic() > job.deadline:
            message = (
                f"no answer within request_timeout after {job.tokens} tokens: ask for fewer, or"
                " raise it in the model_config"
            )
            job.out.put(
                (job.index, "error", MlflowException(message, error_code=TEMPORARILY_UNAVAILABLE))
            )
            return True
        return False

    def _end(self, active: dict[int, Job], job: Job, kind: str, value: object) -> None:
        active.pop(id(job), None)
        job.out.put((job.index, kind, value))

    def _fail(self, active: dict[int, Job], message: str) -> None:
        with self._wake:
            self._failed = self._failed or message
            stranded = [*active.values(), *self._waiting]
            self._waiting.clear()
            active.clear()
        # an error each: MLflow's scoring server writes the request into the one that it was raised
        # with
        for job in stranded:
            job.out.put((job.index, "error", MlflowException(message, error_code=INTERNAL_ERROR)))
