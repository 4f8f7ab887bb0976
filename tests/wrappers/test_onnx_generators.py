"""Answers one by one over a hand-written Generator that counts: pieces of prompts, the prefix
cache, and which jobs go into a batch instead.
"""

import queue
import weakref
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from steps.wrappers.served.answer import AnswerText
from steps.wrappers.served.backend import PREFILL_CHUNK, Job
from steps.wrappers.served.limits import Limits
from steps.wrappers.served.onnx_backend import OnnxBackend
from steps.wrappers.served.onnx_generators import GeneratorRows
from steps.wrappers.served.prefix_cache import PrefixCache
from steps.wrappers.served.request import Defaults, request_of
from tests.wrappers.doubles import PieceDecoder
from tests.wrappers.subjects import Folders

END = 9_999


class Generator:
    """Remembers what it was given; says 7 for ever."""

    def __init__(self, *_: object) -> None:
        self.held: list[int] = []
        self.pieces: list[int] = []

    def append_tokens(self, ids: list[int]) -> None:
        self.held += ids
        self.pieces.append(len(ids))

    def rewind_to(self, length: int) -> None:
        del self.held[length:]

    def generate_next_token(self) -> None:
        self.held.append(7)

    def get_next_tokens(self) -> list[int]:
        return [7]


class Parameters:
    """Takes every option."""

    def __init__(self, *_: object) -> None:
        pass

    def set_search_options(self, **_: object) -> None:
        pass


def job(length: int, *, first: int = 0, **settings: Any) -> Job:
    request = request_of({"prompt": "x", "max_tokens": 4, **settings}, None, Defaults())
    return Job(
        list(range(first, first + length)),
        request,
        0,
        AnswerText(lambda: PieceDecoder(str), ()),
        queue.SimpleQueue(),
    )


@pytest.fixture
def rows() -> GeneratorRows:
    module = SimpleNamespace(Generator=Generator, GeneratorParams=Parameters)
    return GeneratorRows(
        module,
        object(),
        limits=Limits((END,), 8000),
        vocabulary=10_000,
        token_bytes=1,
        cache=PrefixCache(10_000_000),
    )


def test_others_are_answered_between_the_pieces_of_a_long_prompt(rows: GeneratorRows) -> None:
    short, long = job(3, max_tokens=100), job(3 * PREFILL_CHUNK + 5, first=1000)
    rows.start(short)
    assert [job for job, _, _ in rows.step()] == [short]
    rows.start(long)
    heard = [[job for job, _, _ in rows.step()] for _ in range(4)]
    assert heard == [[short], [short], [short], [short, long]]
    generator = rows.running[1].generator
    assert generator.pieces == [PREFILL_CHUNK, PREFILL_CHUNK, PREFILL_CHUNK, 5]
    assert generator.held[:-1] == long.ids


def test_a_step_computes_about_one_piece_the_shortest_prompt_first(rows: GeneratorRows) -> None:
    longer, long, short, tiny = (
        job(length, max_tokens=100)
        for length in (3 * PREFILL_CHUNK, 2 * PREFILL_CHUNK, PREFILL_CHUNK - 10, 10)
    )
    for one in (longer, long, short, tiny):
        rows.start(one)
    heard = [[job for job, _, _ in rows.step()] for _ in range(6)]
    assert heard[0] == [short, tiny]
    assert [long in jobs for jobs in heard] == [False, False, True, True, True, True]
    assert [longer in jobs for jobs in heard] == [False] * 5 + [True]


def test_a_job_that_is_stopped_half_way_leaves_what_was_computed(rows: GeneratorRows) -> None:
    long = job(3 * PREFILL_CHUNK)
    rows.start(long)
    list(rows.step())
    assert rows.stop(long)
    again = job(3 * PREFILL_CHUNK)
    assert rows.cached(again) == PREFILL_CHUNK
    rows.start(again)
    list(rows.step())
    assert again.cached_tokens == PREFILL_CHUNK
    assert rows.running[0].generator.held == again.ids[: 2 * PREFILL_CHUNK]


def test_only_the_young_may_begin_again(rows: GeneratorRows) -> None:
    waiting, old = job(2 * PREFILL_CHUNK), job(3, max_tokens=100)
    rows.start(old)
    for _ in range(9):
        list(rows.step())
    rows.start(waiting)
    assert rows.young(8) == [waiting]
    rows.withdraw(waiting)
    assert [job for job, _, _ in rows.step()] == [old]


def test_what_one_generator_does_wrong_fails_one_job(
    rows: GeneratorRows, monkeypatch: pytest.MonkeyPatch
) -> None:
    good, bad = job(60), job(60, first=500)
    rows.start(good)
    rows.start(bad)

    def fail() -> None:
        raise RuntimeError("no memory")

    monkeypatch.setattr(rows.running[1].generator, "generate_next_token", fail)
    assert list(rows.step()) == [(good, 7, None), (bad, None, "error")]
    assert bad.failure is not None
    assert len(rows) == 1
    assert rows.cached(job(60, first=500)) == 0  # what it holds is unknown


@pytest.fixture
def backend(tiny: Folders) -> Iterator[OnnxBackend]:
    """The tiny model with a prompt of 100 tokens in its cache, and space for 150 more."""
    made = OnnxBackend(
        tiny.onnx("fp32"),
        threads=1,
        max_batch_size=8,
        prefix_cache_bytes=10**8,
        execution_provider=None,
        provider_options={},
    )
    begun = job(100, max_tokens=150)
    made.start([begun])
    list(made.step())
    made.stop(begun)
    yield made
    made.close()


def run(backend: OnnxBackend, jobs: list[Job]) -> int:
    """Answer jobs that came together; returns how many went into a batch."""
    backend.start(jobs)
    batched = len(backend.batches)
    while backend.busy():
        list(backend.step())
    return batched


def test_a_kept_prompt_that_comes_alone_goes_on(backend: OnnxBackend) -> None:
    again = job(100, max_tokens=120)
    assert (run(backend, [again]), again.cached_tokens) == (0, 99)


@pytest.mark.parametrize(("tokens", "batched", "cached"), [(4, 2, 99), (120, 3, 0)])
def test_in_a_crowd_it_goes_on_where_that_saves_more_than_the_batch(
    backend: OnnxBackend, tokens: int, batched: int, cached: int
) -> None:
    again = job(100, max_tokens=tokens)
    assert run(backend, [again, job(50, first=500), job(50, first=900)]) == batched
    assert again.cached_tokens == cached


class Engine:
    """An engine that can be referred to weakly."""

    def __init__(self, engine: Any) -> None:
        self.engine = engine

    def __getattr__(self, name: str) -> Any:
        return getattr(self.engine, name)


def test_one_engine_at_most_is_at_rest(
    backend: OnnxBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each keeps the KV caches of its last batch, beyond prefix_cache_bytes."""
    made: list[weakref.ref[Engine]] = []
    og = backend.batches.og

    def engine(model: Any) -> Engine:
        wrapped = Engine(og.Engine(model))
        made.append(weakref.ref(wrapped))
        return wrapped

    options = {"RequestOptions": og.RequestOptions, "TurnOptions": og.TurnOptions}
    monkeypatch.setattr(backend.batches, "og", SimpleNamespace(Engine=engine, **options))
    for _ in range(2):
        assert run(backend, [job(50, first=500), job(50, first=900)]) == 2
    assert len(made) == 1
    at_once = [[job(50, first=500 + number), job(50, first=900 + number)] for number in range(3)]
    for jobs in at_once:
        backend.start(jobs)
    assert len(made) == 3
    for one in (job for jobs in at_once for job in jobs):
        backend.stop(one)
    assert sum(reference() is not None for reference in made) == 1
