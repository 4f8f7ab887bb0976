"""What comes back: completions, batches, streams, and answers to requests at the same time."""

import json
import re
from concurrent.futures import ThreadPoolExecutor
from itertools import cycle, islice

from .model_under_test import (
    QUESTION,
    TOKENS,
    LimitError,
    ModelUnderTest,
    completions_of,
    expect,
    expect_sum,
    reaches_limit_or_stops,
    text,
    text_of,
)

LONG_QUESTION = "Count from one to one hundred in words."


def shape(model: ModelUnderTest) -> str:
    answer = model.greedy
    missing = {"id", "object", "created", "model", "choices", "usage"} - set(answer)
    expect(not missing, f"missing keys {sorted(missing)}")
    expect(answer["object"] == "chat.completion", f"object is {answer['object']!r}")
    choice = answer["choices"][0]
    expect(
        choice["index"] == 0 and choice["message"]["role"] == "assistant",
        f"choice is {str(choice)[:100]}",
    )
    content = choice["message"]["content"]
    expect(isinstance(content, str), f"content is {content!r}, expected text")
    expect(
        isinstance(answer["created"], int) and isinstance(answer["id"], str) and bool(answer["id"]),
        "id or created has the wrong type",
    )
    json.dumps(answer)
    return "id, object, created, model, choices, usage"


def public_name(model: ModelUnderTest) -> str:
    name: str = model.greedy["model"]
    expect(isinstance(name, str) and bool(name), f"model is {name!r}")
    expect(not re.search(r"^[/~.]|^[A-Za-z]:\\|^file:", name), f"model leaks a path: {name!r}")
    return name


def dictionary(model: ModelUnderTest) -> str:
    answers = completions_of(model.loaded.predict(model.row()))
    expect(
        len(answers) == 1 and text(answers[0]) == text(model.greedy),
        "a dictionary is answered differently from a frame of one row",
    )
    return "a dictionary is answered as a frame of one row"


def finish_reason(model: ModelUnderTest) -> str:
    for limit in (1, 4, TOKENS):
        answer = model.ask(max_tokens=limit)
        used, reason = answer["usage"]["completion_tokens"], answer["choices"][0]["finish_reason"]
        # EOS may be the very last token that was allowed
        wanted = {"stop"} if used < limit else {"length", "stop"}
        expect(reason in wanted, f"{used} of {limit} tokens end with {reason!r}")
    cut = model.ask(LONG_QUESTION, max_tokens=4)["choices"][0]["finish_reason"]
    expect(cut == "length", f"a cut answer ends with {cut!r}")
    return "length on a token limit, stop otherwise"


def usage(model: ModelUnderTest) -> str:
    for limit in (2, TOKENS):
        counted = model.ask(max_tokens=limit)["usage"]
        expect(
            counted["prompt_tokens"] > 0 and counted["completion_tokens"] >= 0,
            f"usage is {counted}",
        )
        expect_sum(counted)
    longer = model.ask(QUESTION + " Start with Monday, please.", max_tokens=2)["usage"]
    expect(
        longer["prompt_tokens"] > model.greedy["usage"]["prompt_tokens"],
        "a longer prompt does not count more tokens",
    )
    return "prompt + completion = total"


def batch(model: ModelUnderTest) -> str:
    limits = [2, 9, 5]
    rows = [model.row(LONG_QUESTION, max_tokens=limit) for limit in limits]
    answers = completions_of(model.predict(*rows))
    used = [answer["usage"]["completion_tokens"] for answer in answers]
    expect(len(used) == len(limits), f"{len(limits)} rows got {len(used)} answers")
    expect(
        all(map(reaches_limit_or_stops, answers, limits)),
        f"rows with max_tokens {limits} used {used}",
    )
    return "each row keeps its own settings, in order"


def concurrency(model: ModelUnderTest) -> str:
    limits = list(islice(cycle((2, 3, 5, 7)), model.concurrency))

    def used(limit: int) -> int | str:
        try:
            answer = model.ask(LONG_QUESTION, max_tokens=limit)
            count = int(answer["usage"]["completion_tokens"])
            return limit if reaches_limit_or_stops(answer, limit) else count
        except Exception as error:  # noqa: BLE001 - told by the row below, not by the thread
            return f"{type(error).__name__}: {error}"

    with ThreadPoolExecutor(len(limits)) as pool:
        got = list(pool.map(used, limits))
    expect(got == limits, f"threads with max_tokens {limits} used {got}")
    return f"{len(limits)} threads at once get their own answers"


def streaming(model: ModelUnderTest) -> str:
    expect(model.streams, "the model does not stream")
    chunks = list(model.loaded.predict_stream(model.row()))
    expect(
        all(chunk.get("object") == "chat.completion.chunk" for chunk in chunks),
        "a chunk is not a chat.completion.chunk",
    )
    choices = [choice for chunk in chunks for choice in chunk["choices"]]
    expect(
        choices[0]["delta"].get("role") == "assistant", f"the first delta is {choices[0]['delta']}"
    )
    joined = "".join(text_of(choice["delta"]) for choice in choices)
    expect(joined == text(model.greedy), f"streamed {joined!r}, whole {text(model.greedy)!r}")
    reasons = [choice["finish_reason"] for choice in choices if choice.get("finish_reason")]
    expect(reasons == [model.greedy["choices"][0]["finish_reason"]], f"finish reasons {reasons}")
    return "streamed deltas join to the whole answer"


def prompt_column(model: ModelUnderTest) -> str:
    if "prompt" not in model.columns:
        raise LimitError("the signature has no prompt column: this variant speaks chat only")
    answers = model.predict(
        {"prompt": "One, two,", "max_tokens": 4}, {"prompt": "Hello", "max_tokens": 4}
    )
    expect(
        isinstance(answers, list)
        and len(answers) == 2
        and all(isinstance(answer, str) for answer in answers),
        f"got {str(answers)[:120]}",
    )
    return "one string a row"
