"""What is sent: conversations of any text, role and length, read whole or refused with a 400."""

import re
from typing import Any

from .model_under_test import TOKENS, LimitError, ModelUnderTest, chat, expect, refusal, text, user

# past the context of most small models; what a model says of its own goes before it
OVERLONG_WORDS = 40_000
PAST_BORDER = 48  # tokens that a prompt reaches past a border, more than a chat template's own


def unicode(model: ModelUnderTest) -> str:
    answer = model.ask("Repeat: čeština, 日本語, العربية, e\u0301, 👩🏽‍🚀, \u200b\ufeff")
    text(answer).encode("utf-8")
    expect(answer["usage"]["prompt_tokens"] > 20, f"usage is {answer['usage']}")
    return "accepted and answered"


def empty_content(model: ModelUnderTest) -> str:
    answer = model.ask("", max_tokens=4)
    expect(answer["usage"]["prompt_tokens"] > 0, "no prompt tokens")
    return "an empty text is answered"


def turns(model: ModelUnderTest) -> str:
    """Prompts with and without each part; a longer system message stands for none, as a template
    may put in one of its own.
    """

    def tokens(system: str | None, history: bool) -> int:
        before = (
            [*user("My name is Ada."), {"role": "assistant", "content": "Hello Ada."}]
            if history
            else []
        )
        first = [{"role": "system", "content": system}] if system is not None else []
        messages = [*first, *before, *user("What is my name?")]
        answer = chat(model.loaded, {"messages": messages, "temperature": 0.0, "max_tokens": 1})
        return int(answer["usage"]["prompt_tokens"])

    expect(tokens(None, False) < tokens(None, True), "history is not in the prompt")
    try:
        whole = tokens("You are brief.", True)
    except Exception as error:
        if getattr(error, "error_code", None) == "INVALID_PARAMETER_VALUE":
            raise LimitError(f"no system role: {error}"[:200]) from error
        raise
    expect(
        tokens("You are brief. You answer in one sentence and never in two.", True) > whole,
        "the system message is not in the prompt",
    )
    return "system message and history are in the prompt"


def _refused(model: ModelUnderTest, messages: list[dict[str, Any]]) -> str:
    row = {"messages": messages, "temperature": 0.0, "max_tokens": 4}
    return refusal(lambda: model.predict(row))[:160]


def no_messages(model: ModelUnderTest) -> str:
    return _refused(model, [])


def wrong_role(model: ModelUnderTest) -> str:
    return _refused(model, [{"role": "wizard", "content": "Hello"}])


def wrong_temperature(model: ModelUnderTest) -> str:
    return refusal(lambda: model.ask(temperature=-1.0))[:160]


def wrong_max_tokens(model: ModelUnderTest) -> str:
    return refusal(lambda: model.ask(max_tokens=0))[:160]


def overlong(model: ModelUnderTest) -> str:
    """One word is at least one token, so as many as the context holds cannot fit, and nothing need
    be computed to know it.
    """
    metadata = model.loaded.metadata.metadata or {}
    known = metadata.get("context_length") or model.limits.get("context_length")
    words = int(known) if known else OVERLONG_WORDS
    message = refusal(lambda: model.ask("word " * words, max_tokens=4))
    expect(
        re.search(r"\d{4,}|\d,\d{3}", message) is not None,
        f"the refusal does not say how long: {message[:160]}",
    )
    expect(
        model.ask(max_tokens=4)["usage"]["completion_tokens"] > 0,
        "the model does not answer after the refusal",
    )
    return message[:160]


def past_borders(model: ModelUnderTest) -> str:
    """Prompts that end before and past each length at which a model's attention or positions
    change.
    """
    limits = model.limits
    lengths = {*limits.get("windows", []), limits.get("rope_border")} - {None, 0}
    borders = sorted(
        border for border in lengths if border + 2 * PAST_BORDER < limits["context_length"]
    )
    if not borders:
        return "no length at which anything changes"
    few, many = (
        model.ask("word " * words, max_tokens=1)["usage"]["prompt_tokens"] for words in (8, 40)
    )
    for border in borders:
        # the first one's answer crosses the border
        for target in (border - TOKENS // 2, border + PAST_BORDER):
            words = max(1, 8 + round((target - few) * 32 / max(1, many - few)))
            first, second = (model.ask("word " * words) for _ in range(2))
            expect(
                text(first) == text(second),
                f"a prompt of {first['usage']['prompt_tokens']} tokens is answered in two ways",
            )
        got = second["usage"]["prompt_tokens"]
        expect(
            got > border,
            f"a prompt of {words} words counts {got} tokens, not past the border of {border}",
        )
    return f"answers across {borders}"
