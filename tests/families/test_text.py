"""Both variants of every family read and write as transformers does: ids, decoded text, greedy
answers alone, in batches, over turns.
"""

import random
from collections.abc import Iterator
from typing import Any

import pytest

from steps.wrappers.served.tokenizer import CheckpointTokenizer
from tests.families.asking import (
    NEW_TOKENS,
    VARIANTS,
    asked,
    differing,
    prompts,
    returned,
    right,
    said,
    talked,
)
from tests.families.fuzz import texts
from tests.families.subject import Subject, rows

BATCH = 8
LONE = 24  # of the prompts, those that are also asked alone
PROMPTS, FEW = 200, 96  # of a row that is slow, and of one that is not


def tokenizers_of(subject: Subject) -> Iterator[CheckpointTokenizer]:
    """The tokenizer of each variant, as its served class reads it."""
    for variant in VARIANTS:
        yield subject.served(variant).tokenizer


@pytest.mark.parametrize("subject", rows(), indirect=True)
def test_ids(subject: Subject) -> None:
    """Texts become transformers' ids; a raw prompt gets the tokenizer's BOS once."""
    reference = subject.reference
    special = list(reference.tokenizer.added_tokens_decoder.values())[:40]
    odd = [
        "",
        " ",
        *(f"{token.content} x{token.content}" for token in special),
        " ".join(token.content for token in special),
    ]
    plain = ["x" * 3000, " " * 700, *texts(seed=11, count=500)]
    begin = reference.tokenizer.bos_token or ""
    for served in tokenizers_of(subject):
        for text in [*odd, *plain]:
            ids = reference.tokenizer.encode(text, add_special_tokens=False)
            assert served.encode(text) == ids, repr(text)
        for text in [*plain[2:60], f"{begin}Hello", f"{begin} {begin}"]:
            if text:
                assert served.encode_prompt(text) == reference.prompt_ids(text), repr(text)


@pytest.mark.parametrize("subject", rows(), indirect=True)
def test_decoded(subject: Subject) -> None:
    """Text that is streamed joins to what transformers decodes at once: of texts, and of random
    ids, which hold broken characters.
    """
    reference, dice = subject.reference, random.Random(5)
    size = len(reference.tokenizer)
    answers = [
        reference.tokenizer.encode(text, add_special_tokens=False)
        for text in texts(seed=12, count=160)
    ]
    answers += [[dice.randrange(size) for _ in range(1 + number)] for number in range(120)]
    bytes_alone = [
        token
        for token in range(size)
        if len(reference.tokenizer.convert_ids_to_tokens(token)) == 1 or token < 300
    ]
    answers += [[dice.choice(bytes_alone) for _ in range(40)] for _ in range(40)]
    for served in tokenizers_of(subject):
        for ids in answers:
            decode = served.decoder()
            assert "".join(decode(token) for token in ids) + decode.finish() == reference.decode(
                ids
            ), ids


@pytest.mark.parametrize("subject", rows(), indirect=True)
def test_greedy(subject: Subject, record_property: Any) -> None:
    """Many short prompts, eight at once and alone, are answered as `generate` does."""
    count = PROMPTS if subject.family.slow else FEW
    given = prompts(seed=1, count=count)
    reference = subject.reference
    expected = [
        answer
        for answer, _ in reference.answers(
            [reference.prompt_ids(prompt) for prompt in given], NEW_TOKENS
        )
    ]
    assert len(set(expected)) > count / 4, (
        "the model says the same to everything, which shows nothing"
    )
    for variant in VARIANTS:
        served = subject.served(variant)
        batches = [given[start : start + BATCH] for start in range(0, count, BATCH)]
        batched = [
            answer
            for batch in batches
            for answer in served.predict(None, [asked(prompt) for prompt in batch])
        ]
        assert differing(given, expected, batched) == [], variant
        alone = [served.predict(None, [asked(prompt)])[0] for prompt in given[:LONE]]
        assert differing(given, expected, alone) == [], variant
        streamed = ["".join(served.predict_stream(None, asked(prompt))) for prompt in given[:BATCH]]
        assert differing(given, expected, streamed) == [], variant
    record_property("cell", f"{count} of {count}")


@pytest.mark.parametrize("subject", rows(), indirect=True)
def test_turns(subject: Subject) -> None:
    """Second and third turns of a conversation, which go on with the KV cache of the turns before,
    and a turn that begins anew.
    """
    for variant in VARIANTS:
        served = subject.served(variant)
        for first, second, third in zip(*[iter(prompts(seed=2, count=24))] * 3, strict=True):
            messages: list[dict[str, str]] = []
            for question in (first, second, third):
                messages.append({"role": "user", "content": question})
                expected = right(subject, messages)
                assert said(served.predict(None, [talked(messages)])[0]) == expected, (
                    variant,
                    messages,
                )
                messages.append({"role": "assistant", "content": returned(subject, expected[0])})
            again = [{"role": "user", "content": f"{first} {second}"}]
            assert said(served.predict(None, [talked(again)])[0]) == right(subject, again), (
                variant,
                again,
            )
