"""Chunks joined to whole completions."""

from typing import Any

from steps.serving.answers import summed, whole

HEAD = {"id": "chatcmpl-1", "created": 5, "model": "slm", "system_fingerprint": "slm/3-abc"}


def chunk(index: int = 0, reason: str | None = None, told: Any = None, **delta: Any) -> Any:
    choice = {"index": index, "delta": delta, "logprobs": told, "finish_reason": reason}
    return {**HEAD, "object": "chat.completion.chunk", "choices": [choice]}


def test_text_reasoning_and_log_probabilities_are_joined_by_choice() -> None:
    usage = {"prompt_tokens": 2, "completion_tokens": 3, "total_tokens": 5}
    completion = whole(
        [
            chunk(role="assistant", content=""),
            chunk(1, role="assistant", content=""),
            chunk(reasoning_content="hm"),
            chunk(told={"content": [{"token": "a"}], "refusal": None}, content="a"),
            chunk(1, content="z"),
            chunk(told={"content": [{"token": "b"}], "refusal": None}, content="b"),
            chunk(reason="stop"),
            chunk(1, reason="length"),
            {**HEAD, "choices": [], "usage": usage},
        ]
    )
    assert completion["object"] == "chat.completion"
    assert completion["usage"] == usage
    first, second = completion["choices"]
    message = {"role": "assistant", "refusal": None}
    assert first["message"] == {**message, "content": "ab", "reasoning_content": "hm"}
    assert [entry["token"] for entry in first["logprobs"]["content"]] == ["a", "b"]
    assert (first["finish_reason"], second["finish_reason"]) == ("stop", "length")
    assert second["message"] == {**message, "content": "z"}
    assert second["logprobs"] is None


def test_calls_lose_their_index_and_content_is_null_beside_them() -> None:
    call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    completion = whole(
        [
            chunk(role="assistant", content=""),
            chunk(tool_calls=[{"index": 0, **call}]),
            chunk(reason="tool_calls"),
        ]
    )
    message = completion["choices"][0]["message"]
    assert message == {
        "role": "assistant",
        "content": None,
        "refusal": None,
        "tool_calls": [call],
    }


def test_counts_are_summed_where_all_are_known() -> None:
    one = {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3, "more": {}}
    two = {"prompt_tokens": 2, "completion_tokens": 4, "total_tokens": 6}
    assert summed([one, one]) == two
    assert summed([one, None]) is None
