"""Reasoning is told from content, whatever the pieces that the text comes in."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from steps.wrappers.served.answer import AnswerText, completion
from steps.wrappers.served.reasoning import Piece, ReasoningSplitter
from tests.wrappers.doubles import PieceDecoder

TAGS = ("<think>", "</think>")


def split(pieces: list[str], *, opened: bool = False) -> tuple[str, str]:
    splitter = ReasoningSplitter(*TAGS, opened=opened)
    made = [*(splitter.take(piece) for piece in pieces), splitter.finish()]
    return (
        "".join(piece.content for piece in made),
        "".join(piece.reasoning for piece in made),
    )


@pytest.mark.parametrize(
    ("text", "opened", "content", "reasoning"),
    [
        ("<think>\nwhy\n</think>\n\nNoon.", False, "Noon.", "why"),
        ("\n<think>why</think>Noon. ", False, "Noon. ", "why"),
        ("why\n</think>\n\nNoon.", True, "Noon.", "why"),
        ("<think>\nwhy</think>Noon.", True, "Noon.", "why"),  # opened by the prompt and once more
        ("<think>\nwhy it is cut", False, "", "why it is cut"),
        ("why it is cut </thi", True, "", "why it is cut </thi"),
        ("<think>\n\n</think>\n\nNoon.", False, "Noon.", ""),
        (" Noon. <think>no</think>", False, " Noon. <think>no</think>", ""),
        ("Noon. </think> It is.", False, "Noon. </think> It is.", ""),
        ("<thi", False, "<thi", ""),
        ("<think>a </think b</think>\nc</think>", False, "c</think>", "a </think b"),
        ("", False, "", ""),
        ("  ", True, "", ""),
    ],
)
def test_where_reasoning_ends(text: str, opened: bool, content: str, reasoning: str) -> None:
    assert split([text], opened=opened) == (content, reasoning)
    assert split(list(text), opened=opened) == (content, reasoning)


@given(
    st.lists(
        st.sampled_from(["<think>", "</think>", "<thi", "nk>", " ", "\n", "a", "<"]), max_size=12
    ).map("".join),
    st.lists(st.integers(0, 60), max_size=10),
    st.booleans(),
)
def test_pieces_of_any_size_join_to_the_whole(text: str, cuts: list[int], opened: bool) -> None:
    bounds = [0, *sorted({cut % (len(text) + 1) for cut in cuts}), len(text)]
    assert split([text[start:end] for start, end in pairwise(bounds)], opened=opened) == split(
        [text], opened=opened
    )


def test_without_tags_all_is_content() -> None:
    assert ReasoningSplitter().take("<think>a</think>") == Piece("<think>a</think>")


def told(pieces: list[str], stops: list[str], *, opened: bool = False) -> AnswerText:
    text = AnswerText(
        lambda: PieceDecoder(pieces.__getitem__),
        stops,
        lambda: ReasoningSplitter(*TAGS, opened=opened),
    )
    for number in range(len(pieces)):
        text.add(number)
        if text.stopped:
            break
    text.finish()
    return text


def test_stop_strings_are_of_the_content_alone() -> None:
    text = told(["<think>", "STOP here", "</think>", "It is noon. ", "STOP", " never"], ["STOP"])
    assert (text.reasoning, text.text, text.stopped) == ("STOP here", "It is noon. ", True)


def test_reasoning_tokens_are_counted_with_their_tags() -> None:
    assert told(["<th", "ink>", "why", " so", "</think>", "Noon."], []).reasoning_tokens == 5
    assert told(["why", "</think>", "Noon."], [], opened=True).reasoning_tokens == 2
    assert told(["<th", "at> is", " noon"], []).reasoning_tokens == 0


def test_a_completion_keeps_reasoning_beside_content() -> None:
    answer = told(["<think>", "why", "</think>", "Noon."], []).answer("stop", 5, 0)
    made = completion("name", 3, [answer])
    assert made["choices"][0]["message"] == {
        "role": "assistant",
        "content": "Noon.",
        "reasoning_content": "why",
    }
    assert made["usage"]["completion_tokens_details"] == {"reasoning_tokens": 3}
    cut = completion("name", 3, [told(["<think>", "why"], []).answer("length", 2, 0)])
    assert cut["choices"][0] == {
        "index": 0,
        "message": {"role": "assistant", "content": "", "reasoning_content": "why"},
        "finish_reason": "length",
    }


def test_special_tags_that_the_decoder_shows_are_no_content() -> None:
    pieces = ["<think>", "why", "</think>", "Noon", "<think>", "."]
    text = AnswerText(
        lambda: PieceDecoder(pieces.__getitem__),
        [],
        lambda: ReasoningSplitter(*TAGS),
        frozenset(TAGS),
    )
    for number in range(len(pieces)):
        text.add(number)
    assert (text.text, text.reasoning) == ("Noon.", "why")
