"""Requests made to stop a server get status 400, while others are answered."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import psutil
import pytest
from mlflow.exceptions import MlflowException

from steps.wrappers.served.invalid_request import invalid_request
from steps.wrappers.served.request import Defaults
from steps.wrappers.served.request_rows import requests_of
from tests.wrappers.grammar_shapes import HIDDEN, INTEGER, lark, named, regex, schema
from tests.wrappers.subjects import Folders, Open, say, text

HELLO = [{"role": "user", "content": "Hello"}]
# seconds between two answers to another caller: a quiet machine shows a tenth, what was fixed took
# 10 to 60
LONGEST_GAP = 3.0
GROWTH = 150 * 1024**2  # bytes of memory that all attacks together may leave behind


@dataclass
class Neighbour:
    """Another caller of the same model, who asks again as soon as an answer is there."""

    answers: int = 0
    longest: float = 0.0  # seconds from one answer to the next


@contextmanager
def neighbour(model: Any) -> Iterator[Neighbour]:
    """Ask short questions in another thread."""
    seen, leave = Neighbour(), threading.Event()

    def ask() -> None:
        last = time.monotonic()
        while not leave.is_set():
            assert model.predict(None, say("Hello", max_tokens=2))
            now = time.monotonic()
            seen.answers, seen.longest, last = seen.answers + 1, max(seen.longest, now - last), now

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        while not seen.answers:
            time.sleep(0.01)
        yield seen
    finally:
        leave.set()
        thread.join()


@pytest.fixture(scope="module")
def warm(tiny: Folders, open_onnx: Open) -> Any:
    """The tiny model, keeping no conversations, after the first answers of each kind: what they
    allocate once is no growth.
    """
    model = open_onnx(tiny.onnx("fp32"), prefix_cache_bytes=0)
    model.predict(None, say("Hello", max_tokens=4))
    model.predict(None, say("Hello", max_tokens=4, response_format=regex("[0-9]{4}")))
    return model


ATTACKS: list[dict[str, Any]] = [
    schema({"type": "array", "items": INTEGER, "maxItems": 1_000_000}),
    schema({"type": "array", "items": INTEGER, "maxItems": 3_000_000}),
    schema({"type": "array", "items": INTEGER, "minItems": 10**9}),
    schema({"type": "string", "allOf": [{"pattern": f"^.*a{{{n}}}.*b"} for n in range(60)]}),
    schema({"type": "object", "properties": named(8_000)}),
    schema({"multipleOf": 1_000_003}),
    regex("(a{1000}){1000}"),
    regex("(a?){500}a{500}"),
    lark('start: %json {"type": "array", "items": {"type": "integer"}, "maxItems": 3000000}'),
    lark("start: " + " ".join(f'"a{n}"?' for n in range(3_000))),
]


def test_grammars_that_would_stop_all_callers_stop_none(warm: Any) -> None:
    before = psutil.Process().memory_info().rss
    with neighbour(warm) as other:
        for attack in ATTACKS:
            with pytest.raises(MlflowException) as caught:
                warm.predict(None, say("Hello", response_format=attack))
            assert caught.value.get_http_status_code() == 400, attack
            with pytest.raises(MlflowException):
                list(warm.predict_stream(None, say("Hello", response_format=attack)))
    assert other.longest < LONGEST_GAP
    assert psutil.Process().memory_info().rss - before < GROWTH


def test_many_who_attack_at_once_do_not_stop_a_neighbour(warm: Any) -> None:
    refused: list[int] = []

    def attack(number: int) -> None:
        try:
            warm.predict(
                None, say("Hello", response_format=regex(f"(b?){{50{number}}}b{{50{number}}}"))
            )
        except MlflowException as error:
            refused.append(error.get_http_status_code())

    threads = [threading.Thread(target=attack, args=(number,)) for number in range(6)]
    with neighbour(warm) as other:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert refused == [400] * 6
    assert other.longest < LONGEST_GAP


def test_many_choices_of_a_grammar_are_begun_one_by_one(warm: Any) -> None:
    large = schema(
        {
            "type": "array",
            "items": {"type": "string", "maxLength": 3},
            "minItems": 1,
            "maxItems": 4_096,
        }
    )
    with neighbour(warm) as other:
        [answer] = warm.predict(
            None, say("Hello", n=8, temperature=1.0, seed=1, max_tokens=4, response_format=large)
        )
    assert len(answer["choices"]) == 8
    assert other.longest < LONGEST_GAP


def test_a_grammar_that_fails_while_it_generates_is_the_callers(
    warm: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What neither bounds nor the trial have seen."""
    monkeypatch.setattr(warm.trial, "require", lambda _: None)
    for failing in (
        regex("(a?){500}a{500}"),
        lark("start: " + " ".join(f'"a{n}"?' for n in range(3_000))),
    ):
        for answer in (warm.predict, lambda *row: list(warm.predict_stream(*row))):
            with pytest.raises(
                MlflowException, match="expected a grammar that can be compiled"
            ) as caught:
                answer(None, say("Hello", response_format=failing))
            assert caught.value.get_http_status_code() == 400
            assert "x-guidance" not in str(caught.value)
    assert text(warm.predict(None, say("Hello", max_tokens=2))[0]) is not None


@pytest.mark.parametrize("content", ["a", " ", "漢", "<|endoftext|>", "word ", "e\u0301"])
def test_a_long_text_holds_up_no_other_caller(warm: Any, content: str) -> None:
    long = content * (3_900_000 // len(content))
    with neighbour(warm) as other:
        for row in (say(long), {"prompt": long}):
            with pytest.raises(
                MlflowException,
                match=r"characters': expected at most \d+ characters, as no text that fits",
            ) as caught:
                warm.predict(None, row)
            assert caught.value.get_http_status_code() == 400
        almost = content * (
            warm.limits.context_length * warm.tokenizer.longest_token // len(content) - 50
        )
        with pytest.raises(MlflowException) as caught:
            warm.predict(None, {"prompt": almost})
        assert caught.value.get_http_status_code() == 400
    assert other.longest < LONGEST_GAP


def deep(levels: int) -> Any:
    value: Any = "x"
    for _ in range(levels):
        value = {"a": value}
    return value


LIMITED: list[tuple[dict[str, Any], str]] = [
    ({"messages": HELLO * 4_097}, "messages='4097 messages': expected at most 4096"),
    (
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "a"}] * 4_097}]},
        "4097 parts",
    ),
    (
        {"messages": HELLO, "tools": [{"function": {"name": "f"}}] * 513},
        "tools='513 tools': expected at most 512",
    ),
    (
        {"messages": HELLO, "tools": [{"function": {"name": "f", "parameters": deep(100_000)}}]},
        "64 values within values",
    ),
    (
        {
            "messages": HELLO,
            "tools": [{"function": {"name": "f", "parameters": {"maxItems": 10**5000}}}],
        },
        "at most 4096 bits",
    ),
    (
        {
            "messages": HELLO,
            "tools": [{"function": {"name": "f", "parameters": {"maximum": float("inf")}}}],
        },
        "no such number",
    ),
    (
        {"messages": HELLO, "stop": ["x" * 513]},
        "stop='513 characters': expected strings of at most 512",
    ),
    ({"messages": HELLO, "n": 17}, "from 1 to 16"),
    ({"messages": HELLO, "n": 10**5000}, "a int too large to show"),
    ({"messages": HELLO, "seed": 10**5000}, "a int too large to show"),
    ({"messages": HELLO, "temperature": float("inf")}, "from 0 to 2"),
    ({"messages": HELLO, "chat_template_kwargs": deep(70)}, "64 values within values"),
    ({"messages": HELLO, "chat_template_kwargs": {"a": "x" * 4_000_001}}, "characters"),
    ({"messages": HELLO, "response_format": deep(100_000)}, "64 values within values"),
    ({"messages": HELLO, "k" * 1_000_000: 1}, "expected one of the keys"),
    ({"messages": HELLO, "custom_inputs": [[0] * 100_000] * 10}, "no custom inputs"),
]


@pytest.mark.parametrize(("row", "message"), LIMITED)
def test_a_request_has_bounds(row: dict[str, Any], message: str) -> None:
    started = time.process_time()
    with pytest.raises(MlflowException, match=message) as caught:
        requests_of(row, None, Defaults())
    assert caught.value.get_http_status_code() == 400
    assert len(str(caught.value)) < 2_000
    assert time.process_time() - started < 1


def test_an_error_shows_the_beginning_of_a_large_value() -> None:
    wide: Any = 1
    for _ in range(5):
        wide = [wide] * 1_000
    started = time.process_time()
    assert str(invalid_request("n", wide, "an integer")).startswith("n=[[[[[1, 1, 1")
    assert len(str(invalid_request("n" * 10_000, {"a" * 10_000: wide}, "an integer"))) < 500
    assert time.process_time() - started < 1


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"prompt": "a"}] * 1_001, "rows='1001 rows': expected at most 1000"),
        ([{"prompt": "a" * 3_000_000}] * 3, "9000018 characters"),
    ],
)
def test_a_scoring_server_takes_no_more_rows_than_a_batch_job(
    monkeypatch: pytest.MonkeyPatch, rows: list[Any], message: str
) -> None:
    assert len(requests_of(rows, None, Defaults())) == len(rows)
    monkeypatch.setenv("_MLFLOW_IS_IN_SERVING_ENVIRONMENT", "true")
    with pytest.raises(MlflowException, match=message) as caught:
        requests_of(rows, None, Defaults())
    assert caught.value.get_http_status_code() == 400


def test_both_variants_refuse_alike(
    tiny: Folders, open_checkpoint: Callable[..., Any], warm: Any
) -> None:
    other = open_checkpoint(tiny.checkpoint)
    assert other.tokenizer.longest_token == warm.tokenizer.longest_token
    long = say("a" * 3_900_000)
    rows = [long, {"messages": HELLO * 4_097}, {"messages": HELLO, "stop": ["x" * 513]}]
    for kind, given in HIDDEN:
        asked = {"regex": regex, "lark_grammar": lark}.get(
            kind, lambda _: schema({"maxItems": 10**7})
        )(given)
        rows.append(say("Hello", response_format=asked))
    for row in rows:
        said = []
        for model in (warm, other):
            with pytest.raises(MlflowException) as caught:
                model.predict(None, row)
            assert caught.value.get_http_status_code() == 400
            said.append(str(caught.value))
        assert said[0] == said[1]
