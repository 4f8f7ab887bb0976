"""One thread that owns the engine; every other thread queues its jobs here."""

import os
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import (
    INTERNAL_ERROR,
    REQUEST_LIMIT_EXCEEDED,
    TEMPORARILY_UNAVAILABLE,
)

from .backend import LOG, Backend, Job, Replies

# seconds between looks at waiting jobs: whether their time is up or their reader left
SWEEP_SECONDS = 0.5
# seconds that an idle engine whose batches cannot be joined waits for requests being tokenised
GATHER_SECONDS = 0.01


class Scheduler:
    """Queues jobs and feeds a backend from one thread.

    The queue is bounded and first come, first served. A job past its deadline or whose reader left
    is dropped at the next token.

    Args:
        make: builds the backend, in the scheduler's thread.
        max_queue: jobs that may wait.
        timeout: seconds a job may take from when it is queued.
    """

    def __init__(self, make: Callable[[], Backend], max_queue: int, timeout: float) -> None:
        self._make, self._max_queue, self._timeout = make, max_queue, timeout
        self._swept = time.monotonic()
        self._waiting: deque[Job] = deque()
        self._active: dict[int, Job] = {}  # of the thread, as the backend
        self._wake = threading.Condition()
        self._closing = False
        self._arriving = 0
        self._pid = os.getpid()
        self._failed: str | None = None  # why no job is taken any more
        self.backend: Backend  # set by the thread, which alone calls it
        ready: queue.SimpleQueue[BaseException | None] = queue.SimpleQueue()
        self._thread = threading.Thread(
            target=self._run, args=(ready,), name="slm-scheduler", daemon=True
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
        return self.answering and not self._closing

    @property
    def answering(self) -> bool:
        """Whether waiting callers will hear from it: its thread replies to all before it ends."""
        return self.ours and self._thread.is_alive()

    @contextmanager
    def arriving(self) -> Iterator[None]:
        """Tell the thread that jobs are on their way, so that it may wait to batch them."""
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
            patiently: wait for places in the queue, as the later rows of a large frame do, instead
                of being refused.

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

    def next_reply(self, out: Replies) -> tuple[int, str, Any]:
        """Wait for the next reply to one of the caller's own jobs.

        Raises:
            MlflowException: a job failed, or the thread ended without a reply.
        """
        while True:
            # looked at before the queue, so that an empty one stays empty
            answering = self.answering
            try:
                index, kind, value = out.get(timeout=5 if answering else 0)
            except queue.Empty:
                if answering:
                    continue
                raise MlflowException("the engine is gone; load the model again") from None
            if kind == "error":
                raise value
            return index, kind, value

    def close(self) -> None:
        """Stop the thread and free the backend; safe to call twice and in a forked child."""
        if not self.ours:
            return
        with self._wake:
            self._closing = True
            self._wake.notify_all()
        if self._thread is not threading.current_thread():
            self._thread.join(timeout=60)

    # --- the thread

    def _run(self, ready: "queue.SimpleQueue[BaseException | None]") -> None:
        try:
            self.backend = self._make()
        except BaseException as error:  # noqa: BLE001 - handed to the thread that waits for it
            ready.put(error)
            return
        ready.put(None)
        try:
            while self._turn():
                pass
        except Exception as error:  # noqa: BLE001 - every waiting caller hears of it
            LOG.exception("the engine failed")
            self._fail_all(f"the engine failed: {error}")
        finally:
            self.backend.close()
            self._fail_all("the model was closed")

    def _turn(self) -> bool:
        """Start waiting jobs and advance all by a step; returns whether to go on."""
        fresh = self._taken()
        if fresh is None:
            return False
        self._active.update((id(job), job) for job in fresh)
        if fresh:
            self.backend.start(fresh)
        for job in list(self._active.values()):  # a restarted one may fail among the fresh, too
            if job.failure is not None:
                self._end(job, "error", job.failure)
        replied = False
        for job, token, reason in self.backend.step():
            replied = self._advance(job, token, reason) or replied
        if replied:
            # lets go of the GIL, which the next step holds: readers would get every piece a token
            # late
            time.sleep(0)
        for job in list(self._active.values()):
            if self._dropped(job):
                self.backend.stop(job)
                self._active.pop(id(job), None)
        return True

    def _taken(self) -> list[Job] | None:
        """Wait until there is something to do; jobs to start, or None when closing."""
        with self._wake:
            while not self._closing and not self._waiting and not self.backend.busy():
                self._wake.wait()
            if not self.backend.joins and not self.backend.busy():
                self._wake.wait_for(
                    lambda: self._closing or not self._arriving, timeout=GATHER_SECONDS
                )
            if self._closing:
                return None
            if time.monotonic() - self._swept > SWEEP_SECONDS:
                self._swept = time.monotonic()
                self._waiting = deque(job for job in self._waiting if not self._dropped(job))
            count = self.backend.room_for(self._waiting)
            taken = [self._waiting.popleft() for _ in range(count)]
            if taken:
                self._wake.notify_all()  # there are free places in the queue
        return [job for job in taken if not self._dropped(job)]

    def _advance(self, job: Job, token: int | None, reason: str | None) -> bool:
        """Take what a step did for a job; returns whether its caller has something to read."""
        if id(job) not in self._active:
            return False
        replied = reason is not None
        if token is not None:
            job.tokens += 1
            # an end token is not text, special or not
            piece = job.text.add(token) if reason != "stop" else None
            if piece and job.streams:
                job.reply("text", piece)
                replied = True
            if job.text.stopped and reason is None:
                self.backend.stop(job)
                reason, replied = "stop", True
        if reason == "error":
            failure = job.failure or MlflowException(
                "the engine could not finish this answer", error_code=INTERNAL_ERROR
            )
            self._end(job, "error", failure)
        elif reason is not None:
            rest = job.text.finish()
            if rest and job.streams:
                job.reply("text", rest)
            self._end(job, "answer", job.text.answer(reason, job.tokens, job.cached_tokens))
        return replied

    def _dropped(self, job: Job) -> bool:
        """Whether a job is abandoned or late; its caller is told."""
        if job.cancelled.is_set():
            message = "the request was abandoned"
        elif time.monotonic() > job.deadline:
            message = (
                f"no answer within request_timeout after {job.tokens} tokens: ask for fewer, or"
                " raise it in the model_config"
            )
        else:
            return False
        job.reply("error", MlflowException(message, error_code=TEMPORARILY_UNAVAILABLE))
        return True

    def _end(self, job: Job, kind: str, value: object) -> None:
        self._active.pop(id(job), None)
        job.reply(kind, value)

    def _fail_all(self, message: str) -> None:
        with self._wake:
            self._failed = self._failed or message
            stranded = [*self._active.values(), *self._waiting]
            self._waiting.clear()
            self._active.clear()
            self._wake.notify_all()  # who waits for a place in the queue hears of it, too
        # an error each: MLflow's scoring server writes the request into the one that it was raised
        # with
        for job in stranded:
            job.reply("error", MlflowException(message, error_code=INTERNAL_ERROR))
