"""The one thread that owns the engine, over a hand-written backend that counts."""

import json
import queue
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from mlflow.exceptions import MlflowException

from steps.wrappers.served.answer import Answer, AnswerText
from steps.wrappers.served.backend import Job, engine_error
from steps.wrappers.served.request import Defaults, request_of
from steps.wrappers.served.request_limits import deadline_of
from steps.wrappers.served.scheduler import Scheduler
from tests.wrappers.doubles import PieceDecoder


class Counting:
    """Answers every job with the numbers 1, 2, 3 … up to its limit; a gate holds it back,
    ``broken`` makes it fail.
    """

    def __init__(self, places: int = 2) -> None:
        self.places, self.gate = places, threading.Event()
        self.gate.set()
        self.jobs: dict[int, tuple[Job, int]] = {}
        self.order: list[int] = []
        self.broken = self.closed = False

    joins = False

    def room_for(self, jobs: Sequence[Job]) -> int:
        return min(len(jobs), self.places - len(self.jobs))

    def busy(self) -> bool:
        return bool(self.jobs)

    def start(self, jobs: list[Job]) -> None:
        for job in jobs:
            self.order.append(job.index)
            self.jobs[id(job)] = (job, 0)

    def step(self) -> Iterator[tuple[Job, int | None, str | None]]:
        if self.broken:
            raise RuntimeError("out of memory")
        if not self.gate.wait(0.01):
            return
        for key, (job, token) in list(self.jobs.items()):
            last = token + 1 == job.request.max_tokens
            if last:
                del self.jobs[key]
            else:
                self.jobs[key] = (job, token + 1)
            yield job, token + 1, "length" if last else None

    def stop(self, job: Job) -> None:
        self.jobs.pop(id(job), None)

    def close(self) -> None:
        self.closed = True


def job(out: "queue.SimpleQueue[Any]", index: int = 0, tokens: int = 3, **settings: Any) -> Job:
    request = request_of({"prompt": "x", "max_tokens": tokens, **settings}, None, Defaults())
    return Job(
        [1],
        request,
        0,
        AnswerText(lambda: PieceDecoder(lambda token: f"{token} "), request.stop),
        out,
        index=index,
    )


@pytest.fixture
def backend() -> Counting:
    return Counting()


@pytest.fixture
def scheduler(backend: Counting) -> Iterator[Scheduler]:
    made = Scheduler(lambda: backend, max_queue=4, timeout=60)
    yield made
    made.close()


def test_answers_come_back_to_their_own_queue(scheduler: Scheduler) -> None:
    outs: list[queue.SimpleQueue[Any]] = [queue.SimpleQueue() for _ in range(3)]
    for index, out in enumerate(outs):
        scheduler.submit([job(out, index, tokens=index + 1)])
    answers = [out.get(timeout=5)[2] for out in outs]
    assert [answer.text for answer in answers] == ["1 ", "1 2 ", "1 2 3 "]
    assert [answer.tokens for answer in answers] == [1, 2, 3]


def test_first_come_first_served(backend: Counting, scheduler: Scheduler) -> None:
    backend.gate.clear()
    out: queue.SimpleQueue[Any] = queue.SimpleQueue()
    for index in range(6):
        scheduler.submit([job(out, index)])
        time.sleep(0.03)
    backend.gate.set()
    for _ in range(6):
        out.get(timeout=5)
    assert backend.order == list(range(6))


def test_a_stop_string_ends_the_job_in_the_backend(backend: Counting, scheduler: Scheduler) -> None:
    out: queue.SimpleQueue[Any] = queue.SimpleQueue()
    scheduler.submit([job(out, tokens=1000, stop=["4"])])
    answer = out.get(timeout=5)[2]
    assert isinstance(answer, Answer)
    assert (answer.text, answer.finish_reason, answer.tokens) == ("1 2 3 ", "stop", 4)
    assert not backend.jobs


def test_the_queue_is_bounded_and_patience_waits_for_places(
    backend: Counting, scheduler: Scheduler
) -> None:
    backend.gate.clear()
    out: queue.SimpleQueue[Any] = queue.SimpleQueue()
    scheduler.submit([job(out), job(out)])
    time.sleep(0.1)  # both are in the backend now
    scheduler.submit([job(out) for _ in range(4)])
    with pytest.raises(MlflowException, match="4 requests wait already and max_queue is 4"):
        scheduler.submit([job(out)])
    waiter = threading.Thread(target=lambda: scheduler.submit([job(out)], patiently=True))
    waiter.start()
    backend.gate.set()
    waiter.join(5)
    assert not waiter.is_alive()
    assert [out.get(timeout=5)[1] for _ in range(7)] == ["answer"] * 7


def test_who_waits_too_long_is_told_while_the_backend_is_busy(backend: Counting) -> None:
    scheduler = Scheduler(lambda: backend, max_queue=4, timeout=0.2)
    backend.places = 0
    backend.jobs[0] = (job(queue.SimpleQueue(), tokens=10**9), 0)  # a job that never ends
    out: queue.SimpleQueue[Any] = queue.SimpleQueue()
    scheduler.submit([job(out)])
    _, kind, error = out.get(timeout=5)
    assert (kind, error.get_http_status_code()) == ("error", 503)
    assert "after 0 tokens" in str(error)
    backend.jobs.clear()
    scheduler.close()


def test_an_abandoned_job_leaves_the_backend(backend: Counting, scheduler: Scheduler) -> None:
    out: queue.SimpleQueue[Any] = queue.SimpleQueue()
    left = job(out, tokens=10**9)
    scheduler.submit([left])
    time.sleep(0.05)
    left.cancelled.set()
    assert out.get(timeout=5)[1] == "error"
    assert not backend.jobs


def test_a_backend_that_fails_tells_all_callers_and_is_closed(
    backend: Counting, scheduler: Scheduler
) -> None:
    backend.broken = True
    out: queue.SimpleQueue[Any] = queue.SimpleQueue()
    scheduler.submit([job(out)])
    _, kind, error = out.get(timeout=5)
    assert kind == "error"
    assert "the engine failed: out of memory" in str(error)
    assert "Traceback" not in json.dumps(error.serialize_as_json())
    scheduler.close()
    assert backend.closed
    assert not scheduler.alive
    with pytest.raises(MlflowException, match="the engine failed"):
        scheduler.submit([job(out)])


def test_no_two_callers_share_an_error(backend: Counting, scheduler: Scheduler) -> None:
    """MLflow's scoring server writes the request into the message of the error it caught."""
    backend.gate.clear()
    out: queue.SimpleQueue[Any] = queue.SimpleQueue()
    for _ in range(4):
        scheduler.submit([job(out)])
    time.sleep(0.1)
    backend.broken = True
    errors = [out.get(timeout=5)[2] for _ in range(4)]
    for _ in range(2):
        with pytest.raises(MlflowException, match="the engine failed") as caught:
            scheduler.submit([job(out)])
        errors.append(caught.value)
    assert len({id(error) for error in errors}) == 6


def test_a_job_that_fails_leaves_the_others_alone(backend: Counting, scheduler: Scheduler) -> None:
    start = backend.start

    def choosy(jobs: list[Job]) -> None:
        for bad in [job for job in jobs if job.index == 1]:
            bad.fail(engine_error(ValueError("no such thing\nTraceback …")))
        start([job for job in jobs if job.index != 1])

    backend.start = choosy  # type: ignore[method-assign]
    out: queue.SimpleQueue[Any] = queue.SimpleQueue()
    with scheduler.arriving():
        for index in range(3):
            scheduler.submit([job(out, index)])
    told = {index: (kind, value) for index, kind, value in (out.get(timeout=5) for _ in range(3))}
    assert (told[0][0], told[1][0], told[2][0]) == ("answer", "error", "answer")
    assert told[1][1].message == "the engine could not finish this answer: no such thing"
    assert scheduler.alive


def test_the_callers_own_deadline_goes_before_the_timeout(scheduler: Scheduler) -> None:
    out: queue.SimpleQueue[Any] = queue.SimpleQueue()
    hasty = job(out, tokens=10**9)
    hasty.deadline = time.monotonic() + 0.1
    scheduler.submit([hasty])
    assert "request_timeout" in str(out.get(timeout=5)[2])


def test_a_scoring_servers_patience_is_a_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_SCORING_SERVER_REQUEST_TIMEOUT", "7")
    assert deadline_of(100.0, 600.0) == 700.0
    monkeypatch.setenv("_MLFLOW_IS_IN_SERVING_ENVIRONMENT", "true")
    assert deadline_of(100.0, 600.0) == 107.0
    assert deadline_of(100.0, 5.0) == 105.0


def test_closing_answers_those_who_wait(backend: Counting, scheduler: Scheduler) -> None:
    backend.gate.clear()
    out: queue.SimpleQueue[Any] = queue.SimpleQueue()
    scheduler.submit([job(out) for _ in range(4)])
    scheduler.close()
    assert [out.get(timeout=5)[1] for _ in range(4)] == ["error"] * 4
    assert backend.closed


def test_a_backend_that_cannot_be_made_raises_where_it_was_asked_for() -> None:
    def broken() -> Counting:
        raise MlflowException("no such folder")

    with pytest.raises(MlflowException, match="no such folder"):
        Scheduler(broken, max_queue=1, timeout=1)


def test_requests_on_their_way_are_waited_for_and_batched(
    backend: Counting, scheduler: Scheduler
) -> None:
    batches: list[int] = []
    start = backend.start
    backend.start = lambda jobs: (batches.append(len(jobs)), start(jobs))[1]  # type: ignore[method-assign, func-returns-value]
    out: queue.SimpleQueue[Any] = queue.SimpleQueue()
    with scheduler.arriving():
        scheduler.submit([job(out)])
        scheduler.submit([job(out)])
    for _ in range(2):
        out.get(timeout=5)
    assert batches == [2]


def test_a_patient_caller_hears_of_a_dead_engine(backend: Counting) -> None:
    made = Scheduler(lambda: backend, max_queue=1, timeout=60)
    backend.gate.clear()
    out: queue.SimpleQueue[Any] = queue.SimpleQueue()
    for index in range(2):  # as many as are answered at once
        made.submit([job(out, index)], patiently=True)
    made.submit([job(out, 2)], patiently=True)
    heard: list[MlflowException] = []

    def patient() -> None:
        try:
            made.submit([job(out, 3)], patiently=True)
        except MlflowException as error:
            heard.append(error)

    thread = threading.Thread(target=patient, daemon=True)
    thread.start()
    time.sleep(0.1)
    assert thread.is_alive()
    backend.broken = True
    thread.join(10)
    assert not thread.is_alive()
    assert "out of memory" in str(heard[0])
    made.close()
