"""Log probabilities and biases of tokens through predict and predict_stream."""

import math
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mlflow.exceptions import MlflowException
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from steps.wrappers.served.answer import AnswerText
from steps.wrappers.served.tokenizer import CheckpointTokenizer
from tests.wrappers.doubles import PieceDecoder, SayingModel, ScoredModel
from tests.wrappers.subjects import NAME, Context, Folders, say

SAYS = "It is 12:30 in Łódź 🙂, I say.\n"


@pytest.fixture(scope="module")
def model(smollm: Folders) -> Iterator[ScoredModel]:
    made = ScoredModel()
    made.says = SAYS
    made.load_context(Context({"onnx-model": str(smollm.onnx("int4"))}, {"name": NAME}))
    yield made
    made.close()


ROW = say("What time is it?", max_tokens=100, logprobs=True, top_logprobs=2)


def content_of(choice: dict[str, Any]) -> list[dict[str, Any]]:
    return list(choice["logprobs"]["content"])


def test_every_token_of_the_text_is_told_and_the_end_token_is_not(model: ScoredModel) -> None:
    [answer] = model.predict(None, ROW)
    [choice] = answer["choices"]
    told = content_of(choice)
    assert choice["message"]["content"] == SAYS
    assert b"".join(bytes(entry["bytes"]) for entry in told) == SAYS.encode()
    assert answer["usage"]["completion_tokens"] == len(told) + 1
    # one token has 20, every other 0
    expected = -math.log1p((model.tokenizer.vocabulary - 1) * math.exp(-20))
    assert all(entry["logprob"] == pytest.approx(expected, abs=1e-6) for entry in told)
    for entry in told:
        likeliest, other = entry["top_logprobs"]
        assert {key: entry[key] for key in likeliest} == likeliest
        assert other["logprob"] == pytest.approx(expected - 20, abs=1e-4)
    assert ChatCompletion.model_validate(answer).choices[0].logprobs


def test_only_what_is_asked_for_is_told(model: ScoredModel) -> None:
    [answer] = model.predict(None, ROW | {"top_logprobs": 0})
    assert all(entry["top_logprobs"] == [] for entry in content_of(answer["choices"][0]))
    [answer] = model.predict(None, ROW | {"logprobs": False, "top_logprobs": 0})
    assert "logprobs" not in answer["choices"][0]


def test_copies_of_a_greedy_choice_have_theirs(model: ScoredModel) -> None:
    first, second = model.predict(None, ROW | {"n": 2})[0]["choices"]
    assert content_of(first) == content_of(second)
    assert len(content_of(first)) > 5


@pytest.mark.parametrize("settings", [{}, {"stop": [" I say"]}, {"stop": ["z"]}, {"max_tokens": 4}])
def test_chunks_carry_those_of_the_tokens_that_their_text_completes(
    model: ScoredModel, settings: dict[str, Any]
) -> None:
    [answer] = model.predict(None, ROW | settings)
    chunks = list(model.predict_stream(None, ROW | settings))
    told: list[dict[str, Any]] = []
    said = ""
    for chunk in chunks:
        ChatCompletionChunk.model_validate(chunk)
        [choice] = chunk["choices"]
        text = choice["delta"].get("content")
        if text:
            said += text
            told += content_of(choice)
            assert b"".join(bytes(entry["bytes"]) for entry in told).startswith(said.encode())
        elif "logprobs" in choice:
            told += content_of(choice)
    assert said == answer["choices"][0]["message"]["content"]
    assert told == content_of(answer["choices"][0])


def test_tokens_within_a_stop_string_are_not_told(model: ScoredModel) -> None:
    [answer] = model.predict(None, ROW | {"stop": [", I say"]})
    [choice] = answer["choices"]
    assert choice["message"]["content"] == "It is 12:30 in Łódź 🙂"
    assert [entry["token"] for entry in content_of(choice)][:2] == ["It", " is"]
    told = b"".join(bytes(entry["bytes"]) for entry in content_of(choice))
    assert told.decode() == "It is 12:30 in Łódź 🙂"


def test_biases_are_added_to_the_scores(model: ScoredModel) -> None:
    it, that = model.tokenizer.encode("It")[0], model.tokenizer.encode("That")[0]
    for biases in ({str(it): -100, str(that): 1}, {str(that): 21}):
        [answer] = model.predict(None, ROW | {"max_tokens": 1, "logit_bias": biases})
        assert answer["choices"][0]["message"]["content"] == "That"
        # what the model thought is told, not what the request made of it
        assert content_of(answer["choices"][0])[0]["logprob"] == pytest.approx(-20, abs=0.1)
    outside = model.tokenizer.vocabulary
    with pytest.raises(MlflowException, match=rf"logit_bias={outside}: .* 0 to {outside - 1}"):
        model.predict(None, ROW | {"logit_bias": {str(outside): 1}})


@pytest.mark.parametrize("settings", [{"logit_bias": {"5": 1}}, {"logprobs": True}])
def test_an_engine_without_scores_refuses_them(smollm: Folders, settings: dict[str, Any]) -> None:
    made = SayingModel()
    made.load_context(Context({"onnx-model": str(smollm.onnx("int4"))}, {"name": NAME}))
    with pytest.raises(MlflowException, match="shows no scores of tokens") as caught:
        made.predict(None, say("Hello", max_tokens=1, **settings))
    assert caught.value.get_http_status_code() == 400
    made.close()


def pieces_of(text: str, cuts: list[int]) -> list[str]:
    bounds = [0, *sorted(cut % (len(text) + 1) for cut in cuts), len(text)]
    return [text[start:end] for start, end in pairwise(bounds)]


@given(
    st.text(alphabet="abc ", max_size=30),
    st.lists(st.integers(0, 30), max_size=8),
    st.lists(st.text(alphabet="abc ", min_size=1, max_size=5), max_size=3),
)
def test_told_tokens_are_those_that_begin_in_the_text(
    text: str, cuts: list[int], stops: list[str]
) -> None:
    """Some tokens complete no text, as those of a part of a character do not."""
    pieces = pieces_of(text, cuts)
    answer = AnswerText(lambda: PieceDecoder(pieces.__getitem__), stops)
    told, shown = 0, ""
    for number in range(len(pieces)):
        piece = answer.add(number)
        told, shown = told + piece.tokens, shown + piece.content
        assert "".join(pieces[:told]).startswith(shown) or not shown
        if answer.stopped:
            break
    told += answer.finish().tokens
    assert told == answer.answer("stop", len(pieces), 0).told
    if not answer.stopped:
        assert told == len(pieces)
    else:
        begins = [len("".join(pieces[:number])) for number in range(len(pieces))]
        assert told == sum(begin < len(answer.text) for begin in begins)


@pytest.mark.parametrize("name", ["smollm", "tiny"])
def test_a_tokens_text_is_what_it_adds_to_a_text(name: str, request: pytest.FixtureRequest) -> None:
    folder = request.getfixturevalue(name).checkpoint
    tokenizer = CheckpointTokenizer.of_folder(folder)
    text = " Good evening, Łódź 🙂\n  x"
    shown = [tokenizer.shown(token) for token in tokenizer.encode(f"a{text}")]
    assert b"".join(raw for _, raw in shown).decode().lstrip() == f"a{text}"
    assert any(part.startswith(" ") for part, _ in shown)
    special = next(token for token in range(64) if tokenizer.decode([token]) == "")
    part, raw = tokenizer.shown(special)
    assert part
    assert raw == part.encode()
    assert tokenizer.shown(tokenizer.vocabulary + 5) == ("", b"")
