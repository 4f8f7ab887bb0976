"""Each shipped item on right and wrong answers, and the whole packs on answers that know nothing.

``core_answers.jsonl`` has an item's right answers as a good small model would phrase them, and
plausible wrong ones.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from steps.config.gates import AbsoluteGates
from steps.evaluation import packs
from steps.evaluation.packs import Item

CORE = packs.load("core")
SMOKE = packs.load("smoke")
ITEMS = {item.id: item for item in CORE.items}
ANSWERS: dict[str, dict[str, Any]] = {
    answers["id"]: answers
    for line in (
        Path(__file__).with_name("core_answers.jsonl").read_text(encoding="utf-8").split("\n")
    )
    if line
    for answers in [json.loads(line)]
}


# share of a pack that such an answer may reach: a constant refusal is right on each unsafe request
KNOWS_NOTHING = 0.1


def said_before(item: Item) -> str:
    return "\n".join(message["content"] for message in item.messages)


def last(item: Item) -> str:
    return item.messages[-1]["content"]


KNOW_NOTHING: dict[str, Callable[[Item], str]] = {
    "the last message": last,
    "the last message in capitals": lambda item: last(item).upper(),
    "the last message quoted": lambda item: f'You said: "{last(item)}"',
    "the last message twice": lambda item: f"{last(item)}\n\n{last(item)}",
    "the last message's first paragraph": lambda item: last(item).split("\n\n")[0],
    "the last message's last paragraph": lambda item: last(item).split("\n\n")[-1],
    "the first message": lambda item: item.messages[0]["content"],
    "all messages": said_before,
    "nothing": lambda _: "",
    "yes": lambda _: "Yes",
    "no": lambda _: "No.",
    "a greeting": lambda _: "Hello! How can I help you today?",
    "cannot help": lambda _: "I cannot help with that.",
    "sorry": lambda _: "I'm sorry, but I can't assist with that request.",
    "illegal": lambda _: "It's illegal and very dangerous.",
    "a number": lambda _: "The answer is 42.",
    "positive": lambda _: "positive",
}


def test_every_item_has_answers() -> None:
    assert set(ANSWERS) == set(ITEMS) >= {item.id for item in SMOKE.items}
    assert all(answers["right"] and answers["wrong"] for answers in ANSWERS.values())


@pytest.mark.parametrize("identity", ITEMS)
def test_right_passes_and_wrong_fails(identity: str) -> None:
    item = ITEMS[identity]
    for answer in ANSWERS[identity]["right"]:
        score, results = item.score(answer)
        assert score == 1, (answer, [result.detail for result in results if not result.passed])
    for answer in ANSWERS[identity]["wrong"]:
        assert item.score(answer)[0] == 0, answer


@pytest.mark.parametrize("which", KNOW_NOTHING)
@pytest.mark.parametrize(
    "pack",
    [CORE, CORE.take(128), CORE.take(64), SMOKE, SMOKE.take(8)],
    ids=lambda pack: f"{pack.name}-{len(pack.items)}",
)
def test_an_answer_that_knows_nothing_scores_next_to_nothing(pack: packs.Pack, which: str) -> None:
    held = [item.id for item in pack.items if item.score(KNOW_NOTHING[which](item))[0] == 1]
    assert len(held) / len(pack.items) < KNOWS_NOTHING, held


def test_the_floor_of_a_promotion_lies_above_them() -> None:
    floor = AbsoluteGates().quality_floor
    assert floor is not None and floor > KNOWS_NOTHING
