"""What a scheduler asks of a backend: jobs to generate, step by step."""

import logging
import math
import queue
import threading
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INTERNAL_ERROR

from .answer import AnswerText
from .request import Request

LOG = logging.getLogger(__name__)

# Tokens of a prompt that are computed at once, between two steps of those that decode; prompts are
# kept in pieces of as many. More make the others wait longer, fewer compute slower.
PREFILL_CHUNK = 128

# (index of the job, kind, value): kind ``text`` for streams, then ``answer`` or ``error``
Replies = queue.SimpleQueue[tuple[int, str, Any]]


@dataclass(eq=False)
class Job:
    """One answer to be generated.

    Args:
        ids: prompt token ids.
        request: settings of the answer.
        seed: of the random stream; ignored when greedy.
        text: assembles the answer.
        out: where its replies go.
        deadline: on the monotonic clock, in seconds; the scheduler's own timeout can only bring it
            nearer.
        index: tells its replies from those of other jobs.
        streams: send text as it becomes certain.
    """

    ids: list[int]
    request: Request
    seed: int
    text: AnswerText
    out: Replies
    deadline: float = math.inf
    index: int = 0
    streams: bool = False
    tokens: int = 0
    cached_tokens: int = 0
    cancelled: threading.Event = field(default_factory=threading.Event)
    failure: MlflowException | None = None
    # of the generated tokens, where the request asks for them
    logprobs: list[Any] = field(default_factory=list)

    def reply(self, kind: str, value: object) -> None:
        """Send something to the caller."""
        self.out.put((self.index, kind, value))

    def fail(self, error: MlflowException) -> None:
        """Mark a job that cannot be begun or finished, with an error that no other job shares; the
        scheduler tells its caller.
        """
        self.failure = error

    def restart(self) -> None:
        """Forget what was generated, to begin again elsewhere."""
        self.tokens = 0
        self.logprobs.clear()
        self.text.restart()

    def finish_reason(self, token: int, produced: int, eos: Collection[int]) -> str | None:
        """Why an answer ends with its newest token; None where it goes on."""
        if token in eos:
            return "stop"
        return "length" if produced >= self.request.max_tokens else None


# a job with its new token, its finish reason, or both
Generated = tuple[Job, int | None, str | None]


class Backend(Protocol):
    """A model that generates for several jobs, step by step. Only the scheduler's thread calls it.

    What goes wrong with one job must not raise: ``Job.fail``, and in ``step`` the finish reason
    ``error``. What raises ends the engine and every answer in it.
    """

    # whether a job may join those that run; else it pays to wait a moment for others to start with
    joins: bool

    def room_for(self, jobs: Sequence[Job]) -> int:
        """How many of the first jobs, in this order, may be started now."""

    def busy(self) -> bool:
        """Whether any started job is unfinished."""

    def start(self, jobs: list[Job]) -> None:
        """Begin jobs that came together; those that cannot be begun are failed and forgotten."""

    def step(self) -> Iterable[Generated]:
        """Advance every job; yield what happened to each of them."""

    def stop(self, job: Job) -> None:
        """Drop a job that has not finished; unknown jobs are ignored."""

    def close(self) -> None:
        """Give everything back."""


def engine_error(error: Exception) -> MlflowException:
    """Build the error of one answer that the engine could not give; the trace goes to the log
    alone, as clients read the error.
    """
    LOG.error("an answer failed in the engine", exc_info=error)
    reason = (str(error).splitlines() or [""])[0][:200] or type(error).__name__
    return MlflowException(
        f"the engine could not finish this answer: {reason}", error_code=INTERNAL_ERROR
    )
