"""``predict_stream`` takes and refuses what ``predict`` does, with MLflow's schema in between."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from tests.wrappers.subjects import Logged, say

TAKEN: list[dict[str, Any]] = [
    {},
    {"n": None, "seed": None, "tools": None, "user": None, "logprobs": None, "metadata": None},
    {"n": 1.0, "max_tokens": 5.0, "top_k": 0.0, "seed": 1.0},
    {"temperature": 0, "top_p": 1, "presence_penalty": 0},
    {"store": False, "metadata": {"team": "a"}, "service_tier": "auto", "modalities": ["text"]},
    {"prompt_cache_key": "a", "safety_identifier": "b", "user": "c", "model": "d"},
    {"logit_bias": {}, "top_logprobs": 0, "logprobs": False, "parallel_tool_calls": True},
    {"stream_options": {"include_obfuscation": False}, "stop": ["\n\n\n"], "verbosity": "medium"},
    {"tool_choice": "auto", "response_format": {"type": "text"}, "reasoning_effort": None},
    {
        "messages": [
            {"role": "user", "content": "Hello", "name": None},
            {"role": "assistant", "content": "Hi", "annotations": [], "refusal": None},
            {"role": "user", "content": [{"type": "text", "text": "Again"}], "audio": None},
        ]
    },
]
REFUSED: list[dict[str, Any]] = [
    {"store": True},
    {"n": "2"},
    {"max_tokens": 5.5},
    {"stream": "yes"},
    {"logit_bias": {"99999999": 1}},
    {"top_logprobs": 2},
    {"tool_choice": {"type": "function", "function": {"name": "f"}}},
    {"service_tier": "priority"},
    {"messages": [{"role": "user", "content": "a", "colour": "red"}]},
    {"messages": [{"role": "user", "content": "a", "annotations": [{"a": 1}]}]},
]

BOTH = """
import json, sys, mlflow
from mlflow.exceptions import MlflowException
model = mlflow.pyfunc.load_model(sys.argv[1])
taken, refused = json.loads(sys.argv[2]), json.loads(sys.argv[3])
def message(ask):
    try:
        ask()
    except MlflowException as error:
        return error.message
    return "taken"
for row in taken:
    whole = model.predict(row)[0]["choices"][0]["message"]["content"]
    deltas = [chunk["choices"][0]["delta"] for chunk in model.predict_stream(row)]
    assert "".join(delta.get("content", "") for delta in deltas) == whole, row
print(json.dumps([
    [message(lambda: model.predict(row)), message(lambda: list(model.predict_stream(row)))]
    for row in refused
]))
params = {"max_tokens": 3.0, "n": None, "temperature": 0}
[answer] = model.predict({"prompt": "One, two,"}, params=params)
assert "".join(model.predict_stream({"prompt": "One, two,"}, params=params)) == answer
"""


@pytest.mark.timeout(300)
def test_streams_take_and_refuse_what_predict_does(
    logged: Logged, in_fresh_process: Callable[..., str]
) -> None:
    taken = [{**say("Hello", max_tokens=4), **fields} for fields in TAKEN]
    refused = [{**say("Hello", max_tokens=4), **fields} for fields in REFUSED]
    told = in_fresh_process(BOTH, logged.uris["int4"], json.dumps(taken), json.dumps(refused))
    for fields, (whole, streamed) in zip(REFUSED, json.loads(told), strict=True):
        assert "expected" in whole, fields
        assert streamed == whole
