"""Text cut at stop strings, whatever the pieces it comes in; shapes of completions."""

import json
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st
from mlflow.types.chat import ChatCompletionChunk, ChatCompletionResponse

from steps.wrappers.served.answer import Answer, AnswerText, Chunks, completion
from steps.wrappers.served.tool_calls import Offer
from tests.wrappers.doubles import PieceDecoder


def pieces_of(text: str, cuts: list[int]) -> list[str]:
    bounds = [0, *sorted({cut % (len(text) + 1) for cut in cuts}), len(text)]
    return [text[start:end] for start, end in pairwise(bounds)]


def assembler(pieces: list[str], stops: list[str]) -> AnswerText:
    return AnswerText(lambda: PieceDecoder(pieces.__getitem__), stops)


@given(
    st.text(alphabet="abc ", max_size=30),
    st.lists(st.integers(0, 30), max_size=8),
    st.lists(st.text(alphabet="abc ", min_size=1, max_size=5), max_size=3),
)
def test_shown_text_ends_before_the_first_stop(
    text: str, cuts: list[int], stops: list[str]
) -> None:
    pieces = pieces_of(text, cuts)
    answer = assembler(pieces, stops)
    shown = ""
    for number in range(len(pieces)):
        shown += answer.add(number).content
        assert not any(stop in shown for stop in stops)
        if answer.stopped:
            break
    if not answer.stopped:
        shown += answer.finish().content
    assert shown == answer.text
    assert answer.stopped == any(stop in text for stop in stops)
    assert text.startswith(shown)
    assert answer.stopped or shown == text


def test_restart_forgets() -> None:
    answer = assembler(["one ", "two"], [])
    answer.add(0)
    answer.restart()
    answer.add(1)
    assert answer.text == "two"


def test_usage_adds_up_over_choices() -> None:
    made = completion("name", 5, [Answer("a", "stop", 3, 4), Answer("b", "length", 8)])
    assert made["usage"] == {
        "prompt_tokens": 5,
        "completion_tokens": 11,
        "total_tokens": 16,
        "prompt_tokens_details": {"cached_tokens": 4},
    }
    assert [choice["finish_reason"] for choice in made["choices"]] == ["stop", "length"]
    json.dumps(made)


def test_a_tool_call_replaces_the_text() -> None:
    answer = Answer('{"name": "f", "arguments": {}}', "stop", 3)
    [choice] = completion("name", 1, [answer], offer=Offer({"f": None}))["choices"]
    assert (choice["finish_reason"], choice["message"]["content"]) == ("tool_calls", None)
    [choice] = completion("name", 1, [answer])["choices"]
    assert (choice["finish_reason"], choice["message"]["content"]) == ("stop", answer.text)


def test_chunks_share_their_head() -> None:
    chunks = Chunks("name")
    made = [
        chunks.chunk(0, role="assistant", content=""),
        chunks.chunk(0, content="a"),
        chunks.chunk(0, finish_reason="stop"),
        chunks.usage(1, [Answer("a", "stop", 1)]),
    ]
    assert (
        len({(chunk["id"], chunk["created"], chunk["model"], chunk["object"]) for chunk in made})
        == 1
    )


def test_completions_and_chunks_are_those_of_mlflow() -> None:
    """MLflow's models read them without loss, but for what they do not name."""
    offer = Offer({"f": None})
    answers = [
        Answer("a", "stop", 3, 4, "thought", 2),
        Answer('{"name": "f", "arguments": {}}', "stop", 3),
    ]
    whole = completion("name", 5, answers, offer=offer)
    read = ChatCompletionResponse.model_validate(whole).model_dump(exclude_unset=True)
    assert whole["choices"][0]["message"].pop("reasoning_content") == "thought"
    assert read == whole
    chunks = Chunks("name")
    calls = whole["choices"][1]["message"]["tool_calls"]
    made = [
        chunks.chunk(0, role="assistant", content=""),
        chunks.chunk(0, content="a"),
        chunks.chunk(0, tool_calls=[{"index": 0, **calls[0]}]),
        chunks.chunk(0, finish_reason="stop"),
        chunks.usage(5, answers),
    ]
    for chunk in made:
        assert ChatCompletionChunk.model_validate(chunk).model_dump(exclude_unset=True) == chunk
