"""What a worker sends is read with care."""

from typing import Any

import pytest

from steps.serving.errors import ApiError
from steps.serving.worker_lines import MOST_UNREAD, Replies, capacity_of, checked, parsed
from steps.serving.worker_process import _death

HEAD = {"id": "chatcmpl-1", "created": 5}
USAGE = {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}


def chunk(**choice: Any) -> dict[str, Any]:
    return {**HEAD, "choices": [{"index": 0, "delta": {}, **choice}]}


@pytest.mark.parametrize(
    "good",
    [
        "text",
        chunk(),
        chunk(delta={"content": None, "tool_calls": [{"index": 0}]}, finish_reason="stop"),
        {**HEAD, "choices": [], "usage": USAGE},
        {"finish_reason": "length", "usage": USAGE},
    ],
)
def test_chunks_of_the_wrappers_pass(good: Any) -> None:
    assert checked(good) == good


@pytest.mark.parametrize(
    "bad",
    [
        None,
        7,
        [],
        {},
        {**HEAD, "choices": None},
        {"choices": []},
        {**HEAD, "choices": [7]},
        chunk(index="0"),
        chunk(delta=None),
        chunk(delta={"content": 7}),
        chunk(delta={"tool_calls": ["call"]}),
        chunk(logprobs=7),
        chunk(finish_reason=7),
        {**HEAD, "choices": [], "usage": {"prompt_tokens": "1"}},
        {**HEAD, "choices": [], "usage": {**USAGE, "completion_tokens": -1}},
    ],
)
def test_anything_else_is_the_models_fault(bad: Any) -> None:
    with pytest.raises(ApiError) as caught:
        checked(bad)
    assert (caught.value.status, caught.value.code) == (500, "model_error")


@pytest.mark.parametrize("line", [b"[]\n", b"7\n", b"{\n", b'{"a": NaN}\n', b"\xff\n"])
def test_a_line_is_an_object(line: bytes) -> None:
    with pytest.raises(ValueError):
        parsed(line)


@pytest.mark.parametrize("ready", [None, 7, {}, {"capacity": 0}, {"capacity": "8"}])
def test_a_capacity_is_a_number_of_answers(ready: Any) -> None:
    with pytest.raises(ValueError):
        capacity_of(ready)
    assert capacity_of({"capacity": 8}) == 8


@pytest.mark.anyio
async def test_what_is_not_read_is_bounded() -> None:
    replies = Replies()
    assert replies.put({"chunk": "a"}, MOST_UNREAD)
    assert await replies.get() == {"chunk": "a"}
    assert replies.put({"chunk": "b"}, MOST_UNREAD)
    assert not replies.put({"chunk": "c"}, 1)
    assert await replies.get() == {"chunk": "b"}
    assert "error" in (await replies.get() or {})


@pytest.mark.parametrize(
    ("code", "words"),
    [(-9, "SIGKILL"), (-40, "signal 40"), (1, "exit code 1"), (None, "exit code None")],
)
def test_every_end_has_words(code: int | None, words: str) -> None:
    assert words in _death(code)
