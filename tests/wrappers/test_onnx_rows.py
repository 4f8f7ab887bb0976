"""Continuous batching on the embedded model and on the tiny one: an answer is the same alone and in
company, with its prompt kept or not, and as onnxruntime-genai gives it.
"""

import queue
import random
from collections.abc import Callable
from typing import Any, cast

import pytest
from mlflow.exceptions import MlflowException

from steps.wrappers.served.answer import AnswerText
from steps.wrappers.served.backend import PREFILL_CHUNK, Backend, Job
from steps.wrappers.served.grammar_matchers import GrammarMatchers
from steps.wrappers.served.grammars import Grammar
from steps.wrappers.served.kv_cache import KVCache
from steps.wrappers.served.limits import limits_of_onnx
from steps.wrappers.served.onnx_backend import OnnxBackend
from steps.wrappers.served.onnx_graph import OnnxGraph, Row
from steps.wrappers.served.onnx_rows import OnnxRows
from steps.wrappers.served.request import Defaults, request_of
from tests.wrappers.doubles import PieceDecoder
from tests.wrappers.subjects import Folders

# tokens, on both sides of where pieces of prompts end
LENGTHS = (1, 5, 37, PREFILL_CHUNK - 1, PREFILL_CHUNK, PREFILL_CHUNK + 1, 2 * PREFILL_CHUNK, 300)
SETTINGS: tuple[dict[str, Any], ...] = (
    {},
    {"temperature": 0.9, "seed": 7},
    {"temperature": 1.3, "top_p": 0.8, "top_k": 40, "seed": 8},
    {"frequency_penalty": 1.5, "presence_penalty": 0.5},
    {"repetition_penalty": 1.3, "min_tokens": 8},
)
GREEDY, SEEDED = SETTINGS[:2]
Rows = Callable[..., OnnxRows]


def ids(length: int, seed: int = 0) -> list[int]:
    return [
        random.Random(seed * 1000 + length + place).randrange(3, 40_000) for place in range(length)
    ]


def job(tokens: list[int], *, most: int = 12, **settings: Any) -> Job:
    request = request_of({"prompt": "x", "max_tokens": most, **settings}, None, Defaults())
    text = AnswerText(lambda: PieceDecoder(str), ())
    return Job(tokens, request, request.seed or 0, text, queue.SimpleQueue())


def answers(backend: Backend, jobs: list[Job], *, every: int = 1) -> list[list[int]]:
    """Tokens of every job; one is started every so many steps."""
    given: dict[int, list[int]] = {id(job): [] for job in jobs}
    waiting, steps = list(jobs), 0
    while waiting or backend.busy():
        if waiting and steps % every == 0 and backend.room_for(waiting[:1]):
            backend.start([waiting.pop(0)])
        for current, token, reason in backend.step():
            assert reason != "error", current.failure
            if token is not None:
                given[id(current)].append(token)
        steps += 1
    return [given[id(job)] for job in jobs]


@pytest.fixture(scope="module", params=["shipped", "fp32", "tiny"])
def folder(request: pytest.FixtureRequest, smollm: Folders, tiny: Folders) -> Any:
    if request.param == "shipped":
        return smollm.shipped()
    return tiny.onnx("fp32") if request.param == "tiny" else smollm.onnx(request.param)


@pytest.fixture(scope="module")
def graph(folder: Any) -> OnnxGraph:
    return OnnxGraph(folder, 2, limits_of_onnx(folder))


@pytest.fixture
def rows(graph: OnnxGraph, folder: Any) -> Rows:
    def make(**settings: Any) -> OnnxRows:
        given = {
            "max_batch_size": 4,
            "kv_cache_bytes": 2**32,
            "prefix_cache_bytes": 2**28,
            "matchers": None,
        }
        return OnnxRows(graph, limits=limits_of_onnx(folder), **{**given, **settings})

    return make


@pytest.fixture(scope="module")
def alone(graph: OnnxGraph, folder: Any) -> list[list[int]]:
    """Each length with each setting by itself, nothing kept."""
    made = OnnxRows(
        graph,
        limits=limits_of_onnx(folder),
        max_batch_size=1,
        kv_cache_bytes=2**32,
        prefix_cache_bytes=0,
        matchers=cast("GrammarMatchers", None),
    )
    return [answers(made, [one])[0] for one in varied()]


def varied() -> list[Job]:
    return [
        job(ids(length), **SETTINGS[place % len(SETTINGS)]) for place, length in enumerate(LENGTHS)
    ]


@pytest.mark.parametrize("every", [1, 2, 5])
def test_company_changes_no_answer(rows: Rows, alone: list[list[int]], every: int) -> None:
    assert answers(rows(prefix_cache_bytes=0), varied(), every=every) == alone


def test_a_kept_prompt_changes_no_answer(rows: Rows, alone: list[list[int]]) -> None:
    backend = rows()
    assert answers(backend, varied()) == alone
    again = varied()
    assert answers(backend, again, every=3) == alone
    kept = [(length - 1) // PREFILL_CHUNK * PREFILL_CHUNK for length in LENGTHS]
    assert [one.cached_tokens for one in again] == kept
    assert 0 < backend.blocks.size <= backend.blocks.budget


def test_prompts_that_begin_alike_share_what_is_kept(rows: Rows) -> None:
    begin, backend = ids(2 * PREFILL_CHUNK), rows()
    fresh = [answers(rows(), [job([*begin, *ids(9, seed)])])[0] for seed in range(3)]
    jobs = [job([*begin, *ids(9, seed)]) for seed in range(3)]
    assert [answers(backend, [one])[0] for one in jobs] == fresh
    assert [one.cached_tokens for one in jobs] == [0, 2 * PREFILL_CHUNK, 2 * PREFILL_CHUNK]


def test_greedy_answers_are_those_of_onnxruntime_genai(rows: Rows, folder: Any) -> None:
    other = OnnxBackend(
        folder,
        threads=2,
        max_batch_size=1,
        prefix_cache_bytes=0,
        execution_provider="cpu",
        provider_options={},
    )
    try:
        greedy = [job(ids(length)) for length in LENGTHS]
        expected = [answers(other, [one])[0] for one in greedy]
    finally:
        other.close()
    assert answers(rows(), [job(ids(length)) for length in LENGTHS]) == expected


def test_a_seed_gives_one_text_and_another_seed_another(rows: Rows) -> None:
    hot: dict[str, Any] = {"temperature": 1.5, "most": 24}
    first, again, other = answers(
        rows(), [job(ids(20), seed=seed, **hot) for seed in (1, 1, 2)], every=2
    )
    assert first == again != other


def test_a_row_that_leaves_changes_no_other(rows: Rows, alone: list[list[int]]) -> None:
    backend, jobs = rows(), varied()[:4]
    gone = [job(ids(50, seed), most=200) for seed in range(2)]
    given: dict[int, list[int]] = {id(one): [] for one in jobs}
    for one in (gone[0], jobs[0], gone[1], jobs[1]):
        backend.start([one])
    waiting, steps = jobs[2:], 0
    while backend.busy() or waiting:
        if steps in (4, 7):
            backend.stop(gone[steps == 7])
        if waiting and backend.room_for(waiting):
            backend.start([waiting.pop(0)])
        for current, token, _ in backend.step():
            if token is not None and id(current) in given:
                given[id(current)].append(token)
        steps += 1
    assert [given[id(one)] for one in jobs] == alone[:4]


def test_memory_bounds_how_many_run_together(rows: Rows) -> None:
    backend = rows(max_batch_size=8)
    token_bytes = backend.cache.token_bytes
    tight = rows(max_batch_size=8, kv_cache_bytes=3 * 1040 * token_bytes)
    short, long = job(ids(10), most=10), job(ids(10), most=900)
    assert tight.room_for([short] * 9) == 8
    assert tight.room_for([long] * 9) == 3
    assert tight.room_for([short, short, long, long]) == 3
    assert tight.room_for([job(ids(10), most=4000)]) == 1, "alone it may take more"
    tight.start([short, job(ids(11), most=10)])
    assert tight.room_for([job(ids(10), most=4000)]) == 0
    for _ in range(30):
        list(tight.step())
    assert not tight.busy()
    assert tight.room_for([job(ids(10), most=4000)]) == 1


def test_slots_grow_for_a_long_answer_and_shrink_after_it(rows: Rows) -> None:
    backend = rows()
    expected = answers(rows(), [job(ids(40), most=40)])[0]
    backend.start([job(ids(40), most=40)])
    tokens = [token for _ in range(5) for _, token, _ in backend.step()]
    before = backend.cache.capacity
    backend.start([job(ids(30), most=1500)])
    assert backend.cache.capacity >= 1530 > before
    while len(tokens) < 40:
        tokens += [token for current, token, _ in backend.step() if len(current.ids) == 40]
    assert tokens == expected
    backend.stop(next(row.job for row in backend.rows))
    backend.start([job(ids(10))])
    assert backend.cache.capacity < 1530


def test_a_long_prompt_is_not_starved_by_short_ones(rows: Rows) -> None:
    backend = rows(max_batch_size=3)
    long = job(ids(8 * PREFILL_CHUNK), most=1)
    backend.start([long])
    pieces = 0
    while backend.busy() and any(row.job is long for row in backend.rows):
        while backend.room_for([job(ids(5))]):
            backend.start([job(ids(5, pieces), most=1)])
        list(backend.step())
        pieces += 1
    assert pieces <= 2 * 8 + 1


def test_a_row_that_fails_fails_alone(rows: Rows, alone: list[list[int]]) -> None:
    class Broken:
        def mask(self, _: Grammar) -> "Broken":
            return self

        def apply(self, _: Any) -> None:
            raise RuntimeError("no mask")

    bad = job(ids(8), response_format={"type": "json_object"})
    backend = rows(matchers=Broken())
    jobs = varied()[:3]
    backend.start([jobs[0], bad, *jobs[1:]])
    given: dict[int, list[int]] = {id(one): [] for one in (*jobs, bad)}
    failed = []
    while backend.busy():
        for current, token, reason in backend.step():
            if reason == "error":
                failed.append(current)
            if token is not None:
                given[id(current)].append(token)
    assert failed == [bad]
    assert isinstance(bad.failure, MlflowException)
    assert [given[id(one)] for one in jobs] == alone[:3]


def test_log_probabilities_are_the_models(rows: Rows) -> None:
    one = job(ids(9), most=5)
    one.request = type(one.request)(**{**vars(one.request), "logprobs": 3})
    [tokens] = answers(rows(), [one])
    assert [entry.token for entry in one.logprobs] == tokens
    for entry in one.logprobs:
        assert len(entry.top) == 3
        assert entry.top[0] == (entry.token, entry.logprob)
        assert entry.logprob < 0
        assert [value for _, value in entry.top] == sorted(
            (value for _, value in entry.top), reverse=True
        )


def test_an_idle_model_holds_nothing_for_answers(rows: Rows) -> None:
    backend = rows()
    answers(backend, [job(ids(300), most=4), job(ids(20), most=2)])
    assert backend.cache.capacity == 0


def test_short_answers_run_side_by_side_after_a_long_one(rows: Rows) -> None:
    token_bytes = rows().cache.token_bytes
    backend = rows(max_batch_size=8, kv_cache_bytes=2 * 2064 * token_bytes)
    long, first = job(ids(10), most=1900), job(ids(11), most=30)
    expected = answers(rows(), [job(ids(11), most=30)])[0]
    backend.start([long])
    backend.start([first])
    tokens = [token for current, token, _ in backend.step() if current is first]
    backend.stop(long)
    others = [job(ids(9), most=30) for _ in range(7)]
    assert backend.room_for(others) == 7
    backend.start(others)
    assert backend.cache.capacity < 1000
    while backend.busy():
        tokens += [token for current, token, _ in backend.step() if current is first]
    assert [token for token in tokens if token is not None] == expected


def test_slots_without_memory_fail_their_request_alone(
    rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend, first, long = rows(), job(ids(11)), job(ids(10), most=1900)
    expected = answers(rows(), [job(ids(11))])[0]
    backend.start([first])
    tokens = [token for _, token, _ in backend.step()]

    def refuse(*_: object) -> None:
        raise OSError("Cannot allocate memory")

    with monkeypatch.context() as patched:
        patched.setattr("steps.wrappers.served.kv_cache.mmap.mmap", refuse)
        backend.start([long])
    assert "no memory for keys and values" in str(long.failure)
    while backend.busy():
        tokens += [token for _, token, _ in backend.step()]
    assert tokens == expected


def test_addresses_of_a_cache_that_is_gone_are_not_used(graph: OnnxGraph) -> None:
    """A new cache may lie where an old one did."""
    versions = []
    for _ in range(3):
        cache = KVCache(graph.layers, 2)
        versions.append(cache.version)
        cache.reserve(cache.rounded(4), [])
        versions.append(cache.version)
        graph.prefill(cache, 0, Row([5, 6], 0), long=False)
        first = graph.decode(cache, 0, [Row([7], 2)], long=False).copy()
        cache.release()
        versions.append(cache.version)
        del cache
    assert len({id(version) for version in versions}) == 9
    assert first.any()
