"""Settings of a request, batches and conversations with the ONNX variant."""

import json
import re
import threading
import time
from typing import Any

import pandas as pd
import pytest
from jsonschema import validate
from mlflow.exceptions import MlflowException

from tests.wrappers.subjects import NAME, Folders, Open, say, text

STORY = "Tell me a short story about a fox."


def ask(model: Any, content: str = STORY, **settings: Any) -> dict[str, Any]:
    [answer] = model.predict(None, say(content, **settings))
    assert isinstance(answer, dict)
    return answer


def streamed(model: Any, row: dict[str, Any]) -> str:
    chunks = list(model.predict_stream(None, row))
    return "".join(
        chunk if isinstance(chunk, str) else chunk["choices"][0]["delta"].get("content", "")
        for chunk in chunks
        if chunk
    )


# --- both contracts


def test_both_contracts_in_one_frame(fp32: Any) -> None:
    frame = pd.DataFrame(
        [
            {"prompt": "One, two,", "max_tokens": 4},
            say("Hello", max_tokens=5),
            {"prompt": "A B C", "max_tokens": 3},
        ]
    )
    first, second, third = fp32.predict(None, frame)
    assert isinstance(first, str)
    assert isinstance(third, str)
    assert second["object"] == "chat.completion"
    assert second["model"] == NAME
    assert second["usage"]["completion_tokens"] == 5


def test_a_fact(fp32: Any) -> None:
    assert "Paris" in text(ask(fp32, "What is the capital of France?"))


def test_params_reach_every_row(fp32: Any) -> None:
    answers = fp32.predict(
        None,
        pd.DataFrame({"messages": [say("Hello")["messages"], say("Count to ten")["messages"]]}),
        {"max_tokens": 3},
    )
    assert [answer["usage"]["completion_tokens"] for answer in answers] == [3, 3]


# --- settings


def test_a_stop_string_across_tokens_never_shows(fp32: Any) -> None:
    whole = text(ask(fp32, max_tokens=24))
    for start in range(5, 30, 3):
        stop = whole[start : start + 6]
        cut = ask(fp32, max_tokens=24, stop=[stop])
        assert text(cut) == whole[: whole.index(stop)]
        assert cut["choices"][0]["finish_reason"] == "stop"
        assert streamed(fp32, say(STORY, max_tokens=24, stop=[stop])) == text(cut)


def test_min_tokens_keeps_the_answer_from_ending(fp32: Any) -> None:
    short = ask(fp32, "Say hi", max_tokens=40)
    assert short["choices"][0]["finish_reason"] == "stop"
    longer = ask(fp32, "Say hi", max_tokens=40, min_tokens=40)
    assert longer["usage"]["completion_tokens"] == 40


def test_repetition_penalty_changes_what_repeats(fp32: Any) -> None:
    plain, penalised = (
        text(ask(fp32, "Say la la la la", max_tokens=24, repetition_penalty=penalty))
        for penalty in (1.0, 1.8)
    )
    assert plain != penalised


@pytest.mark.parametrize("penalty", ["frequency_penalty", "presence_penalty"])
def test_penalties_count_what_was_generated(fp32: Any, penalty: str) -> None:
    def most(answer: dict[str, Any]) -> int:
        words = text(answer).lower().split()
        return max(words.count(word) for word in words)

    content = "Write the word red again and again"
    plain, penalised = (
        ask(fp32, content, max_tokens=32),
        ask(fp32, content, max_tokens=32, **{penalty: 2.0}),
    )
    assert text(plain) != text(penalised)
    assert most(penalised) <= most(plain)
    assert text(ask(fp32, content, max_tokens=32, **{penalty: 0.0})) == text(plain)


def test_seeds(fp32: Any) -> None:
    warm: dict[str, Any] = {"temperature": 1.0, "max_tokens": 12}
    assert text(ask(fp32, seed=5, **warm)) == text(ask(fp32, seed=5, **warm))
    assert len({text(ask(fp32, seed=seed, **warm)) for seed in range(4)}) > 1
    assert len({text(ask(fp32, **warm)) for _ in range(4)}) > 1
    two = ask(fp32, seed=5, n=2, **warm)
    assert text(two, 0) == text(ask(fp32, seed=5, **warm))
    assert text(two, 0) != text(two, 1)


def test_a_seed_holds_inside_a_crowd(fp32: Any) -> None:
    warm = say(STORY, temperature=1.0, seed=11, max_tokens=12)
    alone = text(fp32.predict(None, warm)[0])
    crowd = fp32.predict(
        None, [say("One"), warm, say("Two", temperature=0.7), say("Three", temperature=1.0, seed=3)]
    )
    assert text(crowd[1]) == alone


def test_n_greedy_choices_are_alike_and_all_counted(fp32: Any) -> None:
    answer = ask(fp32, n=3, max_tokens=6)
    assert len({text(answer, choice) for choice in range(3)}) == 1
    assert answer["usage"]["completion_tokens"] == 18


# --- grammars

PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 12},
        "age": {"type": "integer", "minimum": 0, "maximum": 120},
    },
    "required": ["name", "age"],
    "additionalProperties": False,
}


def test_an_answer_held_to_a_json_schema_parses(fp32: Any) -> None:
    for content in ("Describe a person", "Write a poem", "1+1"):
        answer = ask(
            fp32,
            content,
            max_tokens=60,
            response_format={"type": "json_schema", "json_schema": {"name": "p", "schema": PERSON}},
        )
        assert answer["choices"][0]["finish_reason"] == "stop"
        validate(json.loads(text(answer)), PERSON)


def test_json_object_parses_or_says_why_not(fp32: Any) -> None:
    for limit in (3, 80):
        answer = ask(
            fp32, "Give me some JSON", max_tokens=limit, response_format={"type": "json_object"}
        )
        if answer["choices"][0]["finish_reason"] == "stop":
            assert isinstance(json.loads(text(answer)), dict)
        else:
            assert answer["choices"][0]["finish_reason"] == "length"


def test_regex_and_lark(fp32: Any) -> None:
    assert re.fullmatch(
        r"[0-9]{3}-[a-f]{2}",
        text(ask(fp32, response_format={"type": "regex", "regex": "[0-9]{3}-[a-f]{2}"})),
    )
    assert text(ask(fp32, response_format={"type": "lark", "lark": 'start: "yes" | "no"'})) in (
        "yes",
        "no",
    )


@pytest.mark.parametrize(
    "grammar",
    [
        {"type": "regex", "regex": "(["},
        {"type": "lark", "lark": "nope"},
        {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": 5}}},
    ],
)
def test_a_bad_grammar_is_refused_and_the_others_are_answered(
    fp32: Any, grammar: dict[str, Any]
) -> None:
    with pytest.raises(MlflowException, match="can be compiled") as caught:
        ask(fp32, response_format=grammar)
    assert caught.value.get_http_status_code() == 400
    assert text(ask(fp32, "What is the capital of France?"))


# --- streams


def test_a_stream_opens_with_the_role_and_closes_with_usage(fp32: Any) -> None:
    row = say(STORY, max_tokens=6, stream_options={"include_usage": True})
    chunks = list(fp32.predict_stream(None, row))
    whole = ask(fp32, max_tokens=6)
    assert chunks[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert "".join(
        chunk["choices"][0]["delta"].get("content", "") for chunk in chunks[:-1]
    ) == text(whole)
    assert chunks[-2]["choices"][0]["finish_reason"] == "length"
    assert chunks[-1]["choices"] == []
    assert chunks[-1]["usage"]["completion_tokens"] == 6


def test_a_stream_of_several_choices(fp32: Any) -> None:
    row = say(STORY, max_tokens=6, n=2, temperature=1.0, seed=5)
    texts = {0: "", 1: ""}
    for chunk in fp32.predict_stream(None, row):
        for choice in chunk["choices"]:
            texts[choice["index"]] += choice["delta"].get("content", "")
    whole = fp32.predict(None, row)[0]
    assert [texts[0], texts[1]] == [text(whole, 0), text(whole, 1)]


def test_a_streamed_prompt_is_strings(fp32: Any) -> None:
    pieces = list(fp32.predict_stream(None, {"prompt": "One, two,", "max_tokens": 6}))
    assert all(isinstance(piece, str) for piece in pieces)
    assert "".join(pieces) == fp32.predict(None, {"prompt": "One, two,", "max_tokens": 6})[0]


def test_an_answer_is_cancelled_while_its_prompt_is_computed(fp32: Any) -> None:
    left = threading.Event()
    stream = fp32.stream_until(left, say("left " * 1_500, max_tokens=4))
    next(stream)  # the role, before any token
    left.set()
    with pytest.raises(MlflowException, match="the request was abandoned"):
        list(stream)


def test_an_abandoned_stream_frees_its_place(smollm: Folders, open_onnx: Open) -> None:
    model = open_onnx(smollm.onnx("int4"), max_batch_size=1)
    stream = model.predict_stream(None, say(STORY, max_tokens=2000))
    for _ in range(3):
        next(stream)
    stream.close()
    started = time.monotonic()
    assert text(ask(model, "Hello", max_tokens=4))
    assert time.monotonic() - started < 10


# --- batches and conversations


ROWS = [
    {"prompt": "a", "max_tokens": 12},
    {"prompt": "The capital of France is", "max_tokens": 9},
    say("What is 2+2?"),
    say(STORY, max_tokens=20),
    {"prompt": "Once upon a time there was a big dog that lived in a house " * 8, "max_tokens": 7},
]


@pytest.mark.parametrize("precision", ["fp32", pytest.param("int8", marks=pytest.mark.slow)])
def test_batched_answers_equal_lone_ones(smollm: Folders, open_onnx: Open, precision: str) -> None:
    model = open_onnx(smollm.onnx(precision))
    alone = [text(model.predict(None, row)[0]) for row in ROWS]
    assert [text(answer) for answer in model.predict(None, ROWS)] == alone


def test_int4_batched_answers_differ_within_bounds(smollm: Folders, open_onnx: Open) -> None:
    """Batched int4 uses other kernels: the first token agrees for all rows but one, and nothing is
    ever another row's answer.
    """
    model = open_onnx(smollm.onnx("int4"))
    for limit in (1, 12):
        rows = [{**row, "max_tokens": limit} for row in ROWS]
        alone = [text(model.predict(None, row)[0]) for row in rows]
        together = [text(answer) for answer in model.predict(None, rows)]
        if limit == 1:
            assert (
                sum(one == other for one, other in zip(alone, together, strict=True))
                >= len(rows) - 1
            )
        else:
            assert len(set(alone)) == len(rows)
            assert not any(
                together[one] == alone[other]
                for one in range(len(rows))
                for other in range(len(rows))
                if one != other
            )


def conversation(model: Any, turns: int, **settings: Any) -> tuple[list[str], list[int]]:
    messages = [{"role": "user", "content": "Here are facts about foxes. " * 20 + "Tell me one."}]
    answers, cached = [], []
    for number in range(turns):
        [answer] = model.predict(
            None, {"messages": messages, "max_tokens": 16, "temperature": 0, **settings}
        )
        answers.append(text(answer))
        cached.append(answer["usage"]["prompt_tokens_details"]["cached_tokens"])
        messages = [
            *messages,
            {"role": "assistant", "content": answers[-1]},
            {"role": "user", "content": f"And number {number}?"},
        ]
    return answers, cached


@pytest.mark.parametrize(
    "precision",
    [
        "int4",
        pytest.param("int8", marks=pytest.mark.slow),
        pytest.param("fp32", marks=pytest.mark.slow),
    ],
)
def test_a_conversation_reuses_its_prefix_and_says_the_same(
    smollm: Folders, open_onnx: Open, precision: str
) -> None:
    warm, cold = (
        open_onnx(smollm.onnx(precision)),
        open_onnx(smollm.onnx(precision), prefix_cache_bytes=0),
    )
    answers, cached = conversation(warm, 3)
    fresh, none = conversation(cold, 3)
    assert answers == fresh
    assert none == [0, 0, 0]
    assert cached[0] == 0
    assert all(count > 100 for count in cached[1:])


def test_a_conversation_that_was_changed_in_the_middle_is_computed_right(
    fp32: Any, smollm: Folders, open_onnx: Open
) -> None:
    cold = open_onnx(smollm.onnx("fp32"), prefix_cache_bytes=0)
    base = [
        {"role": "user", "content": "Facts about foxes. " * 15},
        {"role": "assistant", "content": "Foxes are red."},
    ]
    for ending in ("Why?", "Where?", "Why?"):
        row = {
            "messages": [*base, {"role": "user", "content": ending}],
            "max_tokens": 10,
            "temperature": 0,
        }
        assert text(fp32.predict(None, row)[0]) == text(cold.predict(None, row)[0])


def test_the_cache_stays_within_its_bytes(smollm: Folders, open_onnx: Open) -> None:
    budget = 30_000_000  # of 46,080 bytes a token: five pieces of prompts at most
    model = open_onnx(smollm.onnx("int4"), prefix_cache_bytes=budget)
    for number in range(6):
        model.predict(None, say(f"Number {number}. " * 80, max_tokens=4))
        assert model.scheduler().backend.blocks.size <= budget
    assert model.scheduler().backend.blocks.size > budget / 2
