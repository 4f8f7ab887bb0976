"""Bodies that clients really send, as a proxy recorded them, and answers as OpenAI's client reads
them: ``bodies/<client>.json`` says which versions sent them.
"""

import json
from pathlib import Path
from typing import Any

import pytest
import requests
from openai.types import Completion
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from tests.serving.servers import Serving

pytestmark = [pytest.mark.server, pytest.mark.timeout(600)]
FOLDER = Path(__file__).with_name("bodies")
CHAT = "/v1/chat/completions"


def _recorded() -> list[Any]:
    found = []
    for file in sorted(FOLDER.glob("*.json")):
        for number, one in enumerate(json.loads(file.read_text("utf-8"))["bodies"]):
            found.append(pytest.param(one, id=f"{file.stem}-{number}"))
    return found


@pytest.mark.parametrize("recorded", _recorded())
def test_a_recorded_body_is_answered_or_its_field_is_named(
    server: Serving, recorded: dict[str, Any]
) -> None:
    path, body = recorded["path"], recorded["body"]
    answer = requests.post(f"{server.url}{path}", json=body, timeout=120)
    assert answer.status_code == recorded["status"], answer.text
    if answer.status_code != 200:
        assert answer.json()["error"]["param"] == recorded["param"]
    elif body.get("stream"):
        assert answer.headers["Content-Type"] == "text/event-stream; charset=utf-8"
        usage = (body.get("stream_options") or {}).get("include_usage", False)
        _check_stream(answer.content.decode(), chat=path == CHAT, usage=usage)
    elif path == CHAT:
        _check_completion(answer.text, choices=body.get("n") or 1)
    else:
        Completion.model_validate_json(answer.text, strict=True)


def _check_completion(text: str, choices: int) -> None:
    ChatCompletion.model_validate_json(text, strict=True)
    completion = json.loads(text)
    assert [choice["index"] for choice in completion["choices"]] == list(range(choices))
    for choice in completion["choices"]:
        # what OpenAI's document requires, also where it is null
        assert {"index", "message", "logprobs", "finish_reason"} <= set(choice)
        assert {"role", "content", "refusal"} <= set(choice["message"])
    assert completion["system_fingerprint"]
    assert completion["usage"]["total_tokens"] > 0


def _check_stream(text: str, *, chat: bool, usage: bool) -> None:
    *events, done, rest = text.split("\n\n")
    assert (done, rest) == ("data: [DONE]", "")
    chunks = [event.removeprefix("data: ") for event in events]
    for chunk in chunks:
        if chat:
            ChatCompletionChunk.model_validate_json(chunk, strict=True)
        elif '"finish_reason":null' not in chunk:  # which OpenAI sends, and its type does not have
            Completion.model_validate_json(chunk, strict=True)
    values = [json.loads(chunk) for chunk in chunks]
    assert len({value["id"] for value in values}) == 1
    assert all(("usage" in value) is usage for value in values)
    if usage:
        last = values.pop()
        assert last["choices"] == []
        assert last["usage"]["total_tokens"] > 0
        assert all(value["usage"] is None for value in values)
    choices = [choice for value in values for choice in value["choices"]]
    for choice in choices:
        assert "logprobs" in choice
        if choice["finish_reason"] is not None and chat:
            assert choice["delta"] == {}
    ended = [choice["index"] for choice in choices if choice["finish_reason"] is not None]
    assert sorted(ended) == sorted({choice["index"] for choice in choices})
    if chat:
        firsts = {choice["index"]: choice["delta"] for choice in reversed(choices)}
        assert all(delta["role"] == "assistant" for delta in firsts.values())
