"""What a request sets is heeded: sampling, limits, stop strings, choices, formats."""

import json

from .model_under_test import (
    TOKENS,
    BrokenError,
    LimitError,
    ModelUnderTest,
    answer_or_limit,
    expect,
    expect_sum,
    text,
)

# even a confident model has more than one answer
OPEN_QUESTION = "Write the first lines of a story about anything you like."


def greedy_repeats(model: ModelUnderTest) -> str:
    again = model.ask()
    expect(text(again) == text(model.greedy), f"{text(again)!r} is not {text(model.greedy)!r}")
    return "the same text twice at temperature 0"


def seed(model: ModelUnderTest) -> str:
    def sample(seed: int) -> str:
        return text(model.ask(OPEN_QUESTION, temperature=1.5, max_tokens=24, seed=seed))

    first, second = sample(7), sample(7)
    expect(first == second, f"the same seed gave {first!r} and {second!r}")
    expect({*map(sample, (8, 9, 10))} != {first}, "four seeds gave one text")
    return "same seed, same text; other seeds, other texts"


def top_p(model: ModelUnderTest) -> str:
    nearly = text(model.ask(temperature=1.0, top_p=1e-6, seed=3))
    expect(
        nearly == text(model.greedy),
        f"top_p near 0 gave {nearly!r}, greedy {text(model.greedy)!r}",
    )
    return "top_p near 0 equals greedy"


def top_k(model: ModelUnderTest) -> str:
    one = text(model.ask(temperature=1.0, top_k=1, seed=3))
    expect(one == text(model.greedy), f"top_k=1 gave {one!r}, greedy {text(model.greedy)!r}")
    return "top_k=1 equals greedy"


def max_tokens(model: ModelUnderTest) -> str:
    short = model.ask(max_tokens=3)
    expect(
        short["usage"]["completion_tokens"] <= 3,
        f"{short['usage']['completion_tokens']} tokens for max_tokens=3",
    )
    expect(
        text(model.greedy).startswith(text(short).rstrip("\ufffd")),
        "a shorter limit changed the text",
    )
    return "max_tokens holds"


def stop(model: ModelUnderTest) -> str:
    whole = str(model.greedy["choices"][0]["message"].get("content") or "")
    if not whole and text(model.greedy):
        raise LimitError(
            f"stop strings end what follows the reasoning, and {TOKENS} tokens were reasoning alone"
        )
    middle = whole[len(whole) // 3 :].strip() or whole[len(whole) // 3 :]
    word = middle[: max(2, len(middle) // 2)]
    expect(bool(word), f"no text to stop in: {whole!r}")
    cut = model.ask(stop=[word])
    expect(
        text(cut) == whole[: whole.index(word)], f"stop={word!r} left {text(cut)!r} of {whole!r}"
    )
    reason = cut["choices"][0]["finish_reason"]
    expect(reason == "stop", f"finish_reason is {reason!r}")
    return f"text ends before {word!r}"


def several(model: ModelUnderTest) -> str:
    answer = model.ask(n=2, temperature=0.8, seed=5, max_tokens=8)
    expect(
        [choice["index"] for choice in answer["choices"]] == [0, 1],
        f"n=2 gave {len(answer['choices'])} choices",
    )
    expect_sum(answer["usage"])
    ended = any(choice["finish_reason"] == "stop" for choice in answer["choices"])
    expect(
        ended or answer["usage"]["completion_tokens"] == 16,
        f"usage counts one choice: {answer['usage']}",
    )
    return "n=2 gives two choices, both counted"


def json_answer(model: ModelUnderTest) -> str:
    answer = answer_or_limit(
        lambda: model.ask(
            "Give a JSON object with the key a.",
            response_format={"type": "json_object"},
            max_tokens=48,
        )
    )
    said = text(answer)
    # cut: it cannot parse, but it can begin as an object does
    if answer["choices"][0]["finish_reason"] == "length":
        expect(
            said.lstrip().startswith("{") or not said.strip(),
            f"cut, and not the beginning of an object: {said!r}",
        )
        return "begins as an object, and finish_reason says length"
    try:
        parsed = json.loads(said)
    except ValueError as error:
        raise BrokenError(f"not JSON: {said!r}") from error
    expect(isinstance(parsed, dict), f"not an object: {said!r}")
    return "parses to an object"


def penalty(model: ModelUnderTest) -> str:
    answer = answer_or_limit(
        lambda: model.ask(
            "Say la la la la la la la la.", frequency_penalty=1.5, presence_penalty=0.5
        )
    )
    expect(answer["usage"]["completion_tokens"] > 0, "no answer")
    return "accepted"
