"""Grammars are compiled once and hold every answer by itself."""

import json
import os
import threading
from typing import Any

import numpy as np
import pytest
from mlflow.exceptions import MlflowException
from tokenizers import Tokenizer, decoders, models, normalizers

from steps.wrappers.served import grammar_matchers
from steps.wrappers.served.answer import AnswerText
from steps.wrappers.served.backend import Job, Replies
from steps.wrappers.served.grammar_matchers import GrammarMatchers, answer_error
from steps.wrappers.served.grammars import Grammar
from steps.wrappers.served.request import Defaults, request_of
from tests.wrappers.doubles import PieceDecoder
from tests.wrappers.grammar_shapes import regex
from tests.wrappers.subjects import Folders

ENDS = (0, 2)  # <|endoftext|> and <|im_end|> of the embedded model
DIGITS = Grammar("regex", "[0-9]{2}")
LONGER = 50_000  # entries of logits that are padded beyond the vocabulary of 49,152


@pytest.fixture(scope="module")
def byte_level(smollm: Folders) -> Tokenizer:
    return Tokenizer.from_file(str(smollm.checkpoint / "tokenizer.json"))


@pytest.fixture(scope="module")
def sentencepiece() -> Tokenizer:
    """Spells spaces as ``▁``, and what it does not know in bytes, as Llama 2's and Gemma's do."""
    words = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    words += ["▁", *'0123456789abcé{}":,', "▁a", "12", '{"']
    tokenizer = Tokenizer(
        models.BPE(
            {word: number for number, word in enumerate(words)},
            [("▁", "a"), ("1", "2"), ("{", '"')],
            unk_token="<unk>",
            byte_fallback=True,
            fuse_unk=True,
        )
    )
    tokenizer.add_special_tokens(words[:3])
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    return tokenizer


@pytest.fixture(scope="module")
def matchers(byte_level: Tokenizer) -> GrammarMatchers:
    return GrammarMatchers(byte_level.to_str, ENDS)


def allowed(mask: Any, size: int = LONGER) -> set[int]:
    scores = np.zeros(size, np.float32)
    mask.apply(scores)
    return set(np.flatnonzero(scores == 0).tolist())


@pytest.mark.parametrize("kind", ["byte_level", "sentencepiece"])
@pytest.mark.parametrize("text", ["12 a é", '{"a":12}', "日本🙂\n\tb", "a  12"])
def test_ids_are_the_tokenizers(kind: str, text: str, request: pytest.FixtureRequest) -> None:
    """Held to one text, an answer can be the ids that the tokenizer encodes it with, and ends."""
    tokenizer: Tokenizer = request.getfixturevalue(kind)
    mask = GrammarMatchers(tokenizer.to_str, (2,)).mask(
        Grammar("lark_grammar", f"start: {json.dumps(text, ensure_ascii=False)}")
    )
    ids = tokenizer.encode(text, add_special_tokens=False).ids
    assert len(ids) > 3
    for token in ids:
        choices = allowed(mask)
        assert token in choices
        assert len(choices) < 10  # of the text's beginnings alone
        mask.accept(token)
    assert allowed(mask) == {2}
    mask.accept(2)


def test_only_ends_follow_a_whole_answer_and_padding_is_never_allowed(
    matchers: GrammarMatchers, byte_level: Tokenizer
) -> None:
    mask = matchers.mask(Grammar("regex", "[0-9]{1,2}"))
    digits = set(byte_level.encode("0123456789").ids)
    assert allowed(mask) == digits
    mask.accept(min(digits))
    assert allowed(mask) == digits | set(ENDS)
    mask.accept(min(digits))
    assert allowed(mask) == set(ENDS)
    assert allowed(matchers.mask(Grammar("regex", "(?s:.*)"))) <= set(range(49_152))
    # logits of less than the tokenizer's vocabulary
    assert allowed(matchers.mask(DIGITS), 40) == {token for token in digits if token < 40}


def test_a_grammar_is_compiled_once_and_answers_do_not_share_their_place(
    matchers: GrammarMatchers,
) -> None:
    assert matchers.compiled(DIGITS) is matchers.compiled(Grammar("regex", "[0-9]{2}"))
    first, second = matchers.mask(DIGITS), matchers.mask(DIGITS)
    before = allowed(second)
    token = min(before)
    first.accept(token)
    first.accept(token)
    assert allowed(first) == set(ENDS)
    assert allowed(second) == before == allowed(matchers.mask(DIGITS))


def test_grammars_in_use_stay_compiled(
    byte_level: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(grammar_matchers, "COMPILED", 2)
    own = GrammarMatchers(byte_level.to_str, ENDS)
    used = own.compiled(DIGITS)
    for number in range(4):
        own.compiled(Grammar("regex", f"{number}+"))
        assert own.compiled(DIGITS) is used
    first = own.compiled(Grammar("regex", "3+"))
    own.compiled(Grammar("regex", "4+"))
    own.compiled(Grammar("regex", "5+"))
    assert own.compiled(Grammar("regex", "3+")) is not first


@pytest.mark.parametrize(
    ("kind", "given"),
    [
        ("regex", "(["),
        ("lark_grammar", "nope"),
        ("json_schema", '{"type": 5, "x-guidance": {}}'),
        ("json_schema", "not JSON"),
    ],
)
def test_a_bad_grammar_is_the_callers_and_leaves_the_others(
    matchers: GrammarMatchers, kind: str, given: str
) -> None:
    with pytest.raises(MlflowException, match="expected a grammar that can be compiled") as caught:
        matchers.compiled(Grammar(kind, given))
    assert caught.value.get_http_status_code() == 400
    assert "x-guidance" not in str(caught.value)
    assert "\n" not in str(caught.value)
    assert matchers.mask(DIGITS)


def test_a_tokenizer_that_cannot_be_read_is_said() -> None:
    words = Tokenizer(models.WordLevel({"a": 0, "b": 1}, unk_token="a"))
    with pytest.raises(MlflowException, match="cannot read this model's tokenizer") as caught:
        GrammarMatchers(words.to_str, (1,)).compiled(DIGITS)
    assert caught.value.get_http_status_code() == 400


def test_a_matcher_that_fails_in_the_middle_is_the_callers_fault(
    matchers: GrammarMatchers, byte_level: Tokenizer
) -> None:
    given = regex("(a?){500}a{500}")
    mask = matchers.mask(Grammar("regex", given["regex"]))
    failure: Exception | None = None
    try:
        for token in byte_level.encode("a" * 99).ids:
            mask.apply(np.zeros(LONGER, np.float32))
            mask.accept(token)
    except RuntimeError as error:
        failure = error
    assert failure is not None, "the grammar is no longer too large for the library"
    row = {"prompt": "x", "max_tokens": 4, "response_format": given}
    request = request_of(row, None, Defaults())
    job = Job([1], request, 0, AnswerText(lambda: PieceDecoder(str), ()), Replies())
    told = answer_error(job, failure)
    assert told.get_http_status_code() == 400
    assert "expected a grammar that can be compiled" in str(told)
    assert "state" not in str(told)
    assert answer_error(job, RuntimeError("no memory")).get_http_status_code() == 500


def test_a_token_that_is_not_allowed_is_refused(matchers: GrammarMatchers) -> None:
    mask = matchers.mask(DIGITS)
    with pytest.raises(RuntimeError, match="doesn't satisfy the grammar"):
        mask.accept(5_000)
    with pytest.raises(RuntimeError):  # and its mask does not end the answer
        allowed(mask)


def test_many_threads_and_a_fork(byte_level: Tokenizer) -> None:
    own = GrammarMatchers(byte_level.to_str, ENDS)
    seen: list[set[int]] = []

    def work(number: int) -> None:
        for turn in range(20):
            text = f"[0-9]{{{2 + (number + turn) % 7}}}"
            seen.append(allowed(own.mask(Grammar("regex", text))))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    digits = set(byte_level.encode("0123456789").ids)
    assert len(seen) == 160
    assert all(digits <= choices for choices in seen)
    with own.lock:  # as held by a thread that a child does not have
        child = os.fork()
        if child == 0:
            os._exit(0 if digits <= allowed(own.mask(DIGITS)) else 1)
    assert os.waitpid(child, 0)[1] == 0
