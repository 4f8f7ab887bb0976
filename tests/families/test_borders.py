"""Past the lengths where an implementation that ignores windows or LongRoPE goes wrong, both
variants answer as `generate` does.
"""

import random
from typing import Any

import pytest

from tests.families.asking import VARIANTS, asked, returned, right, said, talked
from tests.families.reference import Reference
from tests.families.subject import Subject, rows

FAR = 1000  # tokens past which a prompt takes seconds
CROSSING = 12  # tokens of an answer that begins below a border and ends past it
WORDS = (
    "alpha",
    "river",
    "stone",
    "light",
    "water",
    "cloud",
    "seven",
    "paper",
    "green",
    "house",
    "morning",
    "table",
)
ENDINGS = (" a", " b", " c", ".", " 1", "\n", " the")


def prompt_of(reference: Reference, tokens: int, seed: int) -> str:
    """A prompt of exactly so many tokens."""
    dice = random.Random(seed)
    words = dice.choices(WORDS, k=tokens)
    while (length := len(reference.prompt_ids(" ".join(words)))) > tokens:
        words = words[: min(len(words) - 1, len(words) * tokens // length)]
    prompt = " ".join(words)
    for _ in range(100):
        longer = prompt + dice.choice(ENDINGS)
        prompt = longer if len(reference.prompt_ids(longer)) <= tokens else prompt
    assert len(reference.prompt_ids(prompt)) == tokens, f"no prompt of {tokens} tokens was found"
    return prompt


def places(border: int) -> list[int]:
    """Lengths of prompts around a border: below it with an answer that crosses, at it, just past
    it; where that is quick, also others.
    """
    few = [border - CROSSING // 2, border, border + 1]
    return few if border > FAR else [*few, border - 1, border + 150, 3 * border]


@pytest.mark.parametrize("subject", rows(borders=True), indirect=True)
def test_prompts(subject: Subject, record_property: Any) -> None:
    """Prompts around each border, alone and with others beside them."""
    reference, family = subject.reference, subject.family
    for variant in VARIANTS:
        served = subject.served(variant)
        assert served.limits.borders == family.borders and served.limits.capped is None, variant
    for border in family.borders:
        for seed, tokens in enumerate(places(border)):
            prompt = prompt_of(reference, tokens, seed)
            expected = reference.answer(reference.prompt_ids(prompt), CROSSING)[0]
            short = prompt_of(reference, 20, seed)
            beside = reference.answer(reference.prompt_ids(short), CROSSING)[0]
            for variant in VARIANTS:
                served = subject.served(variant)
                assert served.predict(None, [asked(prompt, CROSSING)]) == [expected], (
                    variant,
                    border,
                    tokens,
                )
                if border > FAR and tokens > border:
                    continue
                together = served.predict(
                    None, [asked(text, CROSSING) for text in (short, prompt, short)]
                )
                assert together == [beside, expected, beside], (
                    variant,
                    border,
                    tokens,
                    "with others",
                )
    record_property("cell", f"past {', '.join(map(str, family.borders))}")


@pytest.mark.parametrize("subject", rows(borders=True), indirect=True)
def test_next_turn(subject: Subject) -> None:
    """A conversation crosses each border, goes on past it, and begins anew below it."""
    reference = subject.reference
    for border in subject.family.borders:
        long = prompt_of(reference, border - 40, seed=9)
        for variant in VARIANTS:
            served = subject.served(variant)
            messages: list[dict[str, str]] = []
            for question in (long, prompt_of(reference, 60, seed=10), "And then?"):
                messages.append({"role": "user", "content": question})
                expected = right(subject, messages, CROSSING)
                assert said(served.predict(None, [talked(messages, CROSSING)])[0]) == expected, (
                    variant,
                    border,
                    len(messages),
                )
                messages.append({"role": "assistant", "content": returned(subject, expected[0])})
            # what was computed past the border is kept, and must not be taken for this
            first = messages[:1]
            answer = said(served.predict(None, [talked(first, CROSSING)])[0])
            assert answer == right(subject, first, CROSSING), (variant, border, "anew")
