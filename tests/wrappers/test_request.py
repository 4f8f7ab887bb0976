"""Rows become checked requests, or clear refusals; never anything else."""

import json
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mlflow.exceptions import MlflowException

from steps.wrappers.served.answer import first_stop
from steps.wrappers.served.reasoning import longest_held
from steps.wrappers.served.request import KEYS, Defaults, Request, request_of
from steps.wrappers.served.request_rows import requests_of, rows_of

HELLO = [{"role": "user", "content": "Hello"}]
DEFAULTS = Defaults(max_new_tokens=32)


def read(row: dict[str, Any], **params: Any) -> Request:
    return request_of(row, params, DEFAULTS)


def calling(arguments: str) -> dict[str, Any]:
    return {
        "role": "assistant",
        "tool_calls": [{"type": "function", "function": {"name": "f", "arguments": arguments}}],
    }


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({}, "one of the two in each row"),
    ({"prompt": "a", "messages": HELLO}, "one of the two in each row"),
    ({"prompt": ""}, "not empty"),
    ({"prompt": 3}, "prompt=3: expected a string"),
    ({"prompt": "a\x00b"}, "without NUL"),
    ({"prompt": "\ud800"}, "lone surrogate"),
    ({"prompt": "a", "temprature": 0.5}, "temprature=0.5: expected one of the keys"),
    ({"messages": HELLO, "max_token": 4}, r"; did you mean max_tokens\?$"),
    ({"mesages": []}, r"mesages=\[\]: .*; did you mean messages\?$"),
    ({"prompt": "a", "temperature": "hot"}, r"temperature='hot': expected a number from 0 to 2"),
    ({"prompt": "a", "temperature": 2.5}, "from 0 to 2"),
    ({"prompt": "a", "temperature": float("inf")}, "from 0 to 2"),
    ({"prompt": "a", "temperature": True}, "from 0 to 2"),
    ({"prompt": "a", "top_p": 1.5}, "from 0 to 1"),
    ({"prompt": "a", "top_k": -1}, "at least 0"),
    ({"prompt": "a", "top_k": 1.5}, "an integer"),
    ({"prompt": "a", "max_tokens": 0}, "at least 1"),
    ({"prompt": "a", "max_tokens": "9"}, "an integer"),
    ({"prompt": "a", "max_tokens": 4, "max_completion_tokens": 5}, "one limit"),
    ({"prompt": "a", "max_tokens": 4, "min_tokens": 5}, "at most max_tokens, 4"),
    ({"prompt": "a", "n": 0}, "from 1 to 16"),
    ({"prompt": "a", "seed": -1}, "from 0 to"),
    ({"prompt": "a", "stop": [""]}, "none empty"),
    ({"prompt": "a", "stop": 3}, "a string or a list of strings"),
    ({"prompt": "a", "stop": ["x"] * 17}, "at most 16"),
    (
        {"prompt": "a", "repetition_penalty": 0},
        "repetition_penalty=0: expected a number from 0.01 to 10",
    ),
    ({"prompt": "a", "repetition_penalty": 1e-300}, "from 0.01 to 10"),
    ({"prompt": "a", "temperature": 10**400}, "from 0 to 2"),
    ({"prompt": "a", "max_tokens": -(10**400)}, "at least 1"),
    ({"prompt": "a", "n": 10**5000}, "n=a int too large to show: expected an integer from 1 to 16"),
    ({"prompt": "a", "top_k": float("inf")}, "an integer"),
    (
        {"prompt": "a", "stop": ["x"], "response_format": {"type": "regex", "regex": "a+"}},
        "let the grammar end it",
    ),
    (
        {"prompt": "a", "min_tokens": 1, "response_format": {"type": "regex", "regex": "a+"}},
        "min_tokens=1: expected 0 with response_format",
    ),
    ({"prompt": "a", "frequency_penalty": 3}, "from -2 to 2"),
    ({"prompt": "a", "logprobs": 5}, "logprobs=5: expected true or false"),
    ({"prompt": "a", "logprobs": True}, "false with a prompt"),
    ({"messages": HELLO, "logprobs": True}, "shows no scores of tokens"),
    ({"messages": HELLO, "top_logprobs": 3}, "top_logprobs=3: expected 0 without logprobs"),
    ({"messages": HELLO, "logprobs": True, "top_logprobs": 21}, "from 0 to 20"),
    ({"prompt": "a", "logit_bias": {"1": 5}}, "logit_bias={1: 5.0}: expected none; .* no scores"),
    ({"prompt": "a", "logit_bias": [5]}, "an object of token ids"),
    ({"prompt": "a", "logit_bias": {"a": 5}}, "logit_bias='a': expected token ids as keys"),
    ({"prompt": "a", "logit_bias": {"-1": 5}}, "logit_bias='-1': expected token ids as keys"),
    ({"prompt": "a", "logit_bias": {"7": 101}}, "logit_bias.7=101: expected a number from -100"),
    ({"prompt": "a", "logit_bias": {"7": True}}, "logit_bias.7=True: expected a number"),
    ({"prompt": "a", "logit_bias": dict.fromkeys(map(str, range(5000)), 1)}, "at most 4096"),
    ({"prompt": "a", "store": True}, "store=True: expected false"),
    ({"prompt": "a", "store": 0}, "store=0: expected false"),
    ({"prompt": "a", "metadata": "x"}, "metadata='x': expected an object"),
    ({"prompt": "a", "service_tier": "priority"}, "one tier"),
    ({"prompt": "a", "prompt_cache_key": 3}, "prompt_cache_key=3: expected a string"),
    ({"prompt": "a", "safety_identifier": 3}, "safety_identifier=3: expected a string"),
    ({"prompt": "a", "prompt_cache_retention": "24h"}, "expected 'in_memory'"),
    ({"prompt": "a", "modalities": ["text", "audio"]}, "modalities=.*text alone"),
    ({"prompt": "a", "audio": {"voice": "alloy"}}, "audio=.*expected null"),
    ({"prompt": "a", "prediction": {"type": "content", "content": "a"}}, "prediction=.*null"),
    ({"prompt": "a", "verbosity": "low"}, "verbosity='low': expected 'medium'"),
    ({"prompt": "a", "reasoning_effort": "high"}, "reasoning_effort='high'.*chat_template_kwargs"),
    ({"prompt": "a", "functions": [{"name": "f"}]}, "functions=.*offer them as tools"),
    ({"prompt": "a", "function_call": {"name": "f"}}, "function_call=.*tool_choice"),
    ({"prompt": "a", "best_of": 3}, "best_of=3: expected 1"),
    ({"prompt": "a", "min_p": 0.1}, "min_p=0.1: expected 0"),
    ({"prompt": "a", "stream_options": "x"}, "stream_options='x'"),
    ({"prompt": "a", "stream_options": {"colour": True}}, "stream_options=.*include_usage"),
    ({"prompt": "a", "stream_options": {"include_usage": "yes"}}, "include_usage='yes'"),
    ({"prompt": "a", "stream_options": {"include_obfuscation": True}}, "include_obfuscation=True"),
    (
        {"messages": [{"role": "assistant", "content": "a", "annotations": [{"type": "x"}]}]},
        r"messages\[0\].annotations=.*reads text alone",
    ),
    ({"messages": [{"role": "assistant", "content": "a", "audio": {"id": "x"}}]}, "audio="),
    ({"prompt": "a", "stream": "yes"}, "true or false"),
    (
        {"prompt": "a", "tools": [{"type": "function", "function": {"name": "f"}}]},
        "none with a prompt",
    ),
    ({"messages": []}, "at least one message"),
    ({"messages": "Hello"}, "at least one message"),
    ({"messages": ["Hello"]}, r"messages\[0\]='Hello'"),
    ({"messages": [{"role": "wizard", "content": "a"}]}, r"messages\[0\].role='wizard'"),
    ({"messages": [{"content": "a"}]}, r"messages\[0\].role=None"),
    ({"messages": [{"role": "user", "content": None}]}, r"messages\[0\].content=None"),
    ({"messages": [{"role": "user", "content": 3}]}, r"messages\[0\].content=3"),
    (
        {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]},
        "reads text alone",
    ),
    (
        {"messages": [{"role": "user", "content": "a", "colour": "red"}]},
        r"messages\[0\].colour='red'",
    ),
    (
        {"messages": [{"role": "user", "content": "a", "tool_calls": [{}]}]},
        "assistant messages alone",
    ),
    (
        {"messages": [{"role": "assistant", "tool_calls": [{"function": {"name": "f"}}]}]},
        "arguments",
    ),
    ({"messages": [{"role": "user", "content": "a" * 4_000_001}]}, "at most 4000000 characters"),
    ({"messages": HELLO, "response_format": "json"}, "response_format='json'"),
    ({"messages": HELLO, "response_format": {"type": "yaml"}}, "response_format.type='yaml'"),
    (
        {"messages": HELLO, "response_format": {"type": "json_schema"}},
        "response_format.json_schema",
    ),
    (
        {
            "messages": HELLO,
            "response_format": {"type": "json_schema", "json_schema": {"type": "object"}},
        },
        "'schema'",
    ),
    (
        {"messages": HELLO, "response_format": {"type": "regex", "regex": "a\x00"}},
        r"response_format.regex='a.x00': expected text without NUL",
    ),
    ({"messages": HELLO, "response_format": {"type": "regex"}}, "response_format.regex"),
    ({"messages": HELLO, "tool_choice": "required"}, "tool_choice"),
    ({"messages": HELLO, "tools": "f"}, "function definitions"),
    (
        {"messages": HELLO, "tools": [{"function": {"name": "f", "description": "\ud800"}}]},
        "tools=.*lone surrogate",
    ),
    (
        {"messages": HELLO, "tools": [{"function": {"name": "f", "parameters": {"a\x00": 1}}}]},
        "tools=.*without NUL",
    ),
    (
        {"messages": HELLO, "tools": [{"function": {"name": "f", "description": "a" * 4_000_001}}]},
        "tools=.*at most 4000000 characters",
    ),
    (
        {"messages": HELLO, "tools": [{"function": {"name": "f", "parameters": {"a": 10**5000}}}]},
        "at most 4096 bits",
    ),
    ({"messages": [calling("\ud800")]}, "tool_calls=.*lone surrogate"),
    ({"messages": [calling('{"a": "\\u0000"}')]}, "arguments=.*without NUL"),
    ({"messages": [calling('["\\ud800"]')]}, "arguments=.*lone surrogate"),
    ({"messages": [calling("[" * 100_000)]}, "less deeply nested"),
    ({"messages": HELLO, "custom_inputs": {"a": 1}}, "no custom inputs"),
]


@pytest.mark.parametrize(("row", "message"), REFUSED)
def test_refusal_names_the_field(row: dict[str, Any], message: str) -> None:
    with pytest.raises(MlflowException, match=message) as caught:
        read(row)
    assert caught.value.error_code == "INVALID_PARAMETER_VALUE"
    assert caught.value.get_http_status_code() == 400


NEUTRAL_FIELDS: list[dict[str, Any]] = [
    {"store": False},
    {"metadata": {"team": "a"}},
    {"service_tier": "auto"},
    {"service_tier": "default"},
    {"prompt_cache_key": "a"},
    {"safety_identifier": "a"},
    {"prompt_cache_retention": "in_memory"},
    {"modalities": ["text"]},
    {"verbosity": "medium"},
    {"functions": []},
    {"function_call": "none"},
    {"best_of": 1},
    {"min_p": 0.0},
    {"logit_bias": {}},
    {"logit_bias": {"5": 0}},
    {"logit_bias": {"5": None}},
    {"logprobs": False, "top_logprobs": 0},
    {"stream_options": {"include_obfuscation": False, "include_usage": None}},
    {"stream_options": {}},
    {"n": 1.0, "max_tokens": 32.0, "seed": 3.0, "top_k": 0.0},
]


@pytest.mark.parametrize("fields", NEUTRAL_FIELDS)
def test_fields_that_ask_for_nothing_change_nothing(fields: dict[str, Any]) -> None:
    asked = read({"messages": HELLO, **fields})
    plain = read({"messages": HELLO, "seed": 3} if "seed" in fields else {"messages": HELLO})
    assert replace(asked, limited=False) == replace(plain, limited=False)


def test_null_is_not_said() -> None:
    nothing = dict.fromkeys(KEYS - {"messages"})
    assert read({"messages": HELLO, **nothing}) == read({"messages": HELLO})


def test_what_clients_send_back_of_an_answer_is_read() -> None:
    """``model_dump()`` of OpenAI's own class for a message, and what litellm adds to it."""
    from openai.types.chat import ChatCompletionMessage

    dumped = ChatCompletionMessage(role="assistant", content="Hello", annotations=[]).model_dump()
    assert {"annotations", "refusal", "audio", "function_call", "tool_calls"} <= set(dumped)
    more: dict[str, Any] = {
        "provider_specific_fields": {"refusal": None},
        "images": [],
        "thinking_blocks": None,
    }
    [*_, said] = read({"messages": [*HELLO, {**dumped, **more}]}).messages or ()
    assert said == {"role": "assistant", "content": "Hello"}


SCORES = Defaults(max_new_tokens=32, scores=True, vocabulary=50)


def test_biases_are_read_by_token_id() -> None:
    for keys in (("3", "49"), (3, 49)):
        biases = dict(zip(keys, (-100, 2.5), strict=True))
        request = request_of({"prompt": "a", "logit_bias": biases}, None, SCORES)
        assert request.logit_bias == {3: -100.0, 49: 2.5}


def test_an_id_outside_of_the_vocabulary_is_refused_with_its_range() -> None:
    with pytest.raises(MlflowException, match="logit_bias=50: expected token ids from 0 to 49"):
        request_of({"prompt": "a", "logit_bias": {"50": 1}}, None, SCORES)


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"logprobs": True}, 0),
        ({"logprobs": True, "top_logprobs": 5}, 5),
        ({"logprobs": True, "top_logprobs": 20.0}, 20),
        ({"logprobs": False}, None),
        ({}, None),
    ],
)
def test_how_many_log_probabilities_are_told(fields: dict[str, Any], told: int | None) -> None:
    assert request_of({"messages": HELLO, **fields}, None, SCORES).logprobs == told


def test_text_parts_are_joined_and_roles_kept() -> None:
    parts = [{"type": "text", "text": "One, "}, {"type": "text", "text": "two"}]
    request = read(
        {
            "messages": [
                {"role": "developer", "content": "Be brief"},
                {"role": "user", "content": parts},
            ]
        }
    )
    assert request.messages == (
        {"role": "developer", "content": "Be brief"},
        {"role": "user", "content": "One, two"},
    )


def test_a_row_goes_before_params_and_params_before_defaults() -> None:
    request = read({"prompt": "a", "temperature": 0.5}, temperature=1.0, max_tokens=7)
    assert (request.temperature, request.max_tokens) == (0.5, 7)
    assert read({"prompt": "a"}).max_tokens == 32
    assert read({"prompt": "a"}, stop=[], temperature=None).stop == ()
    assert read({"prompt": "a", "max_completion_tokens": 3}, max_tokens=7).max_tokens == 3


@pytest.mark.parametrize(
    "settings",
    [{"temperature": 1e-40}, {"temperature": 1, "top_p": 1e-50}, {"temperature": 1, "top_k": 1}],
)
def test_what_leaves_one_token_to_choose_is_greedy(settings: dict[str, Any]) -> None:
    assert read({"prompt": "a", **settings}).greedy


def test_a_list_that_is_one_value_is_for_every_row() -> None:
    tools = [{"function": {"name": "f"}}, {"function": {"name": "g"}}]
    first, second = rows_of(
        {"prompt": ["a", "b"], "stop": ["x", "y"], "tools": tools, "max_tokens": [1, 2]}
    )
    assert first == {"prompt": "a", "stop": ["x", "y"], "tools": tools, "max_tokens": 1}
    assert (second["stop"], second["tools"], second["max_tokens"]) == (["x", "y"], tools, 2)
    assert [row["stop"] for row in rows_of({"prompt": ["a", "b"], "stop": [["x"], None]})] == [
        ["x"],
        None,
    ]


def test_values_nested_too_deeply_are_refused() -> None:
    deep: Any = "x"
    for _ in range(5000):
        deep = [deep]
    with pytest.raises(MlflowException, match="64 values within values") as caught:
        requests_of({"messages": deep}, None, DEFAULTS)
    assert caught.value.get_http_status_code() == 400


def test_frames_with_gaps_keep_their_integers() -> None:
    frame = pd.DataFrame(
        [{"prompt": "a", "max_tokens": 4}, {"messages": HELLO, "temperature": 0.5}]
    )
    first, second = requests_of(frame, None, DEFAULTS)
    assert (first.prompt, first.max_tokens, first.messages) == ("a", 4, None)
    assert (second.prompt, second.max_tokens, second.temperature) == (None, 32, 0.5)


def test_numpy_inside_rows_becomes_plain() -> None:
    messages = np.array([{"role": "user", "content": "Hello"}], dtype=object)
    request = read(rows_of({"messages": messages, "seed": np.int64(3), "stop": np.array(["x"])})[0])
    assert request.messages == ({"role": "user", "content": "Hello"},)
    assert (request.seed, request.stop) == (3, ("x",))


@pytest.mark.parametrize(
    ("data", "prompts"),
    [
        ("a", ["a"]),
        (["a", "b"], ["a", "b"]),
        ({"prompt": "a"}, ["a"]),
        ({"prompt": ["a", "b"]}, ["a", "b"]),
        ([{"prompt": "a"}, "b"], ["a", "b"]),
        (pd.Series(["a", "b"]), ["a", "b"]),
        (pd.DataFrame({0: ["a", "b"]}), ["a", "b"]),
        (pd.DataFrame({"prompt": ["a", "b"]}), ["a", "b"]),
        (np.array(["a", "b"]), ["a", "b"]),
    ],
)
def test_every_shape_of_data_gives_a_row_each(data: Any, prompts: list[str]) -> None:
    assert [request.prompt for request in requests_of(data, None, DEFAULTS)] == prompts


def test_the_refusal_of_one_row_says_which() -> None:
    with pytest.raises(MlflowException, match="row 1: top_k=-1"):
        requests_of([{"prompt": "a"}, {"prompt": "b", "top_k": -1}], None, DEFAULTS)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda children: (
        st.lists(children, max_size=3) | st.dictionaries(st.text(max_size=8), children, max_size=3)
    ),
    max_leaves=8,
)


@settings(max_examples=300, deadline=None)
@given(
    st.dictionaries(st.sampled_from(sorted(KEYS)) | st.text(max_size=6), json_values, max_size=6)
)
def test_any_row_is_a_request_or_a_refusal(row: dict[str, Any]) -> None:
    try:
        request = read(row)
    except MlflowException as error:
        assert error.error_code == "INVALID_PARAMETER_VALUE"
    else:
        assert (request.prompt is None) != (request.messages is None)
        assert 0 <= request.temperature <= 2
        assert request.max_tokens >= 1


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.dictionaries(
            st.sampled_from(["role", "content", "name", "tool_calls", "x"]), json_values, max_size=4
        ),
        max_size=3,
    )
)
def test_any_messages_are_read_or_refused(messages: list[dict[str, Any]]) -> None:
    try:
        request = read({"messages": messages})
    except MlflowException as error:
        assert error.error_code == "INVALID_PARAMETER_VALUE"
    else:
        assert all(isinstance(message["content"], str) for message in request.messages or ())


@given(
    st.text(alphabet="ab", max_size=12),
    st.lists(st.text(alphabet="ab", min_size=1, max_size=4), max_size=3),
)
def test_held_text_is_the_longest_beginning_of_a_stop(text: str, stops: list[str]) -> None:
    if not any(stop in text for stop in stops):  # it is only asked then
        tails = [
            n for n in range(1, len(text) + 1) if any(stop.startswith(text[-n:]) for stop in stops)
        ]
        assert longest_held(text, stops) == max(tails, default=0)
    assert first_stop(text, stops) == min(
        (text.find(stop) for stop in stops if stop in text), default=None
    )


def test_requests_are_json_safe() -> None:
    request = read(
        {
            "messages": HELLO,
            "response_format": {
                "type": "json_schema",
                "json_schema": {"schema": {"type": "object"}},
            },
        }
    )
    assert request.grammar is not None
    assert json.loads(request.grammar.text)["type"] == "object"
    assert not math.isnan(request.temperature)
