"""The lines of the table: each measures one figure against one other, in turn."""

import os
import statistics
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from typing import Any

from benchmarks.measure import Effort, LeftOut, Row, compare, comparison, in_turn
from benchmarks.peers import NotInstalledError, Times
from benchmarks.server_lines import first_event, ping, staggered
from benchmarks.subjects import STORY, Subjects, chat, stream_times, timed

# sentences of 11 tokens: with the template and the question 440 tokens
FOXES = "Here is what I know about foxes and their ways. "
PEERS = {"llama_cpp": "llama.cpp Q8_0", "openvino": "openvino-genai Q8_0"}

Line = Callable[[Subjects, Effort], list[Row]]


def predict(subjects: Subjects, effort: Effort) -> list[Row]:
    """``predict`` through pyfunc against the raw loop: whole answers, and the cost of a call."""
    model, raw = subjects.load("onnx", prefix_cache_bytes=0), subjects.raw

    def settled(answer: Callable[[str, int], Any], content: str, tokens: int, calls: int) -> float:
        """Median of some calls after one that does not count: the other one's weights have just
        been in the processor's caches.
        """
        answer("Hi", 1)
        return statistics.median(timed(lambda: answer(content, tokens)) for _ in range(calls))

    def ours(content: str, tokens: int) -> Any:
        return model.predict(chat(content, max_tokens=tokens))

    whole = compare(
        lambda: settled(ours, STORY, effort.tokens, 1),
        lambda: settled(raw.answer, STORY, effort.tokens, 1),
        effort,
    )
    one = compare(
        lambda: settled(ours, "Hi", 1, 9), lambda: settled(raw.answer, "Hi", 1, 9), effort
    )
    fixed = [1000 * (ours - theirs) for ours, theirs in zip(*one, strict=True)]
    return [
        comparison(
            f"predict, {effort.tokens} new tokens",
            "raw onnxruntime-genai loop",
            "s",
            whole,
            at_most=1.03,
        ),
        comparison("fixed cost of a call", "1 ms", "ms", (fixed, [1.0] * len(fixed)), at_most=1.0),
    ]


def decode(subjects: Subjects, effort: Effort) -> list[Row]:
    """Tokens a second of one request while decoding, against every other runtime in turn."""
    model, raw = subjects.load("onnx", prefix_cache_bytes=0), subjects.raw
    transformers = subjects.load("transformers")
    row = chat(STORY, max_tokens=effort.tokens)
    measures = {
        "ours": lambda: stream_times(model, row).rate,
        "raw onnxruntime-genai loop": lambda: raw.decode_rate(STORY, effort.tokens),
        "transformers float32": lambda: stream_times(transformers, row).rate,
    }
    theirs, left_out = _peers(subjects, "decode, one request")
    for name, times in theirs.items():
        measures[name] = lambda times=times: times(STORY, effort.tokens).rate  # type: ignore[misc]
    values = in_turn(measures, effort.pairs, warm=effort.warm)
    bars = {"raw onnxruntime-genai loop": 0.98, "transformers float32": 6.0}
    bars |= {PEERS["llama_cpp"]: 1.3, PEERS["openvino"]: 1.7}
    rows = [
        comparison(
            "decode, one request",
            name,
            "tokens/s",
            (values["ours"], values[name]),
            at_least=bars[name],
        )
        for name in list(values)[1:]
    ]
    return [*rows, *left_out]


def first_token(subjects: Subjects, effort: Effort) -> list[Row]:
    """Seconds to the first token of a new prompt, against every other runtime."""
    model, plain = subjects.load("onnx", prefix_cache_bytes=0), subjects.plain
    figure = "first token, 440-token prompt"
    numbers = count()

    def content() -> str:
        return f"Conversation {100 + next(numbers)}. {FOXES * 36}What do you know?"

    def first(times: Times) -> float:
        if not 430 <= times.prompt_tokens <= 450:
            raise RuntimeError(f"a prompt has {times.prompt_tokens} tokens: expected 440")
        return times.first

    measures: dict[str, Callable[[], float]] = {
        "ours": lambda: first(stream_times(model, chat(content(), max_tokens=2))),
        "transformers float32": lambda: plain.first_token(content()),
    }
    theirs, left_out = _peers(subjects, figure)
    for name, times in theirs.items():
        measures[name] = lambda times=times: first(times(content(), 2))  # type: ignore[misc]
    values = in_turn(measures, effort.pairs, warm=effort.warm)
    bars = {"transformers float32": 1.0, PEERS["llama_cpp"]: 1.0}  # the others are only shown
    rows = [
        comparison(figure, name, "s", (values["ours"], values[name]), at_most=bars.get(name))
        for name in list(values)[1:]
    ]
    return [*rows, *left_out]


def _peers(
    subjects: Subjects, figure: str
) -> tuple[dict[str, Callable[[str, int], Times]], list[LeftOut]]:
    """What measures each installed peer, and the rows of `figure` against the others."""
    measures: dict[str, Callable[[str, int], Times]] = {}
    left_out: list[LeftOut] = []
    for name, against in PEERS.items():
        try:
            measures[against] = subjects.peer(name).times
        except NotInstalledError as error:
            left_out.append(LeftOut(figure, against, str(error)))
    return measures, left_out


def threads(subjects: Subjects, effort: Effort) -> list[Row]:
    """Decoding on every core this process may use, against half of the processors: what
    onnxruntime-genai takes when it is not told.
    """
    half = max(1, (os.cpu_count() or 1) // 2)
    ours, theirs = (
        subjects.load("onnx", prefix_cache_bytes=0, threads=threads) for threads in (0, half)
    )
    row = chat(STORY, max_tokens=effort.tokens)
    values = compare(
        lambda: stream_times(ours, row).rate, lambda: stream_times(theirs, row).rate, effort
    )
    return [
        comparison(
            "decode on every core",
            f"{half} of {os.cpu_count()} threads",
            "tokens/s",
            values,
            at_least=1.0,
        )
    ]


def together(subjects: Subjects, effort: Effort) -> list[Row]:
    """Eight requests at once through threads, against one."""
    model = subjects.load("onnx", prefix_cache_bytes=0)
    values = _eight_and_one(model, effort)
    return [comparison("8 requests at once", "1 request", "tokens/s", values, at_least=1.5)]


def transformers_batch(subjects: Subjects, effort: Effort) -> list[Row]:
    """The same of the transformers variant."""
    values = _eight_and_one(subjects.load("transformers"), effort)
    figure = "8 requests at once, transformers variant"
    return [comparison(figure, "1 request", "tokens/s", values, at_least=3.0)]


def _eight_and_one(model: Any, effort: Effort) -> tuple[list[float], list[float]]:
    """Tokens a second of eight requests at once and of one, whole answers with their prompts."""

    def generated(number: int) -> int:
        row = chat(f"{STORY} Make it story number {number}.", max_tokens=effort.tokens)
        return int(model.predict(row)[0]["usage"]["completion_tokens"])

    def rate(at_once: int) -> float:
        tokens = 0

        def ask() -> None:
            nonlocal tokens
            tokens = sum(pool.map(generated, range(at_once)))

        return (1 / timed(ask)) * tokens

    with ThreadPoolExecutor(8) as pool:
        return compare(lambda: rate(8), lambda: rate(1), effort)


def second_turn(subjects: Subjects, effort: Effort) -> list[Row]:
    """First token of a second turn after 400 tokens of history, against a fresh generator."""
    warm, cold = subjects.load("onnx"), subjects.load("onnx", prefix_cache_bytes=0)
    numbers = count()

    def turn(model: Any) -> float:
        question = f"Conversation {next(numbers)}. " + FOXES * 34
        messages = [{"role": "user", "content": question}]
        answer = model.predict({"messages": messages, "max_tokens": 8, "temperature": 0.0})[0][
            "choices"
        ][0]["message"]["content"]
        messages.append({"role": "assistant", "content": answer})
        messages.append({"role": "user", "content": "Is that all?"})
        return stream_times(
            model, {"messages": messages, "max_tokens": 4, "temperature": 0.0}
        ).first

    values = compare(lambda: turn(warm), lambda: turn(cold), effort)
    return [
        comparison(
            "first token of a second turn, 400 tokens of history",
            "fresh generator",
            "s",
            values,
            at_most=0.15,
        )
    ]


FRESH = """
import time; started = time.perf_counter()
import sys, resource, mlflow
model = mlflow.pyfunc.load_model(sys.argv[1])
loaded = time.perf_counter() - started
messages = [{"role": "user", "content": "Hello"}]
model.predict({"messages": messages, "temperature": 0.0, "max_tokens": 16})
import psutil
print(loaded, psutil.Process().memory_info().rss / 1e6)
"""


def fresh_process(subjects: Subjects, effort: Effort) -> list[Row]:
    """Loading in a fresh process, and its memory after one chat, against transformers."""
    values = in_turn(
        {
            "onnx": lambda: subjects.in_process(FRESH, "onnx"),
            "transformers": lambda: subjects.in_process(FRESH, "transformers"),
        },
        effort.pairs,
        warm=effort.warm,
    )
    load, memory = (
        (
            [measured[at] for measured in values["onnx"]],
            [measured[at] for measured in values["transformers"]],
        )
        for at in (0, 1)
    )
    return [
        comparison("RSS, loaded and one chat", "transformers version", "MB", memory, at_most=0.4),
        comparison("load in a fresh process", "transformers version", "s", load, at_most=0.3),
    ]


def guided(subjects: Subjects, effort: Effort) -> list[Row]:
    """Seconds a token when the answer is held to a JSON schema, against a free answer."""
    model = subjects.load("onnx", prefix_cache_bytes=0)
    item: dict[str, Any] = {
        "type": "object",
        "properties": {"name": {"type": "string", "maxLength": 10}, "age": {"type": "integer"}},
        "required": ["name", "age"],
    }
    item["additionalProperties"] = False
    schema = {"type": "array", "items": item, "minItems": 12, "maxItems": 12}
    people = {"type": "json_schema", "json_schema": {"name": "people", "schema": schema}}
    held = chat("List people", max_tokens=effort.tokens, response_format=people)
    free = chat(STORY, max_tokens=effort.tokens)
    values = compare(
        lambda: 1000 * stream_times(model, held).between,
        lambda: 1000 * stream_times(model, free).between,
        effort,
    )
    return [comparison("JSON-schema guided, a token", "unguided", "ms", values, at_most=1.3)]


LINES: dict[str, Line] = {
    line.__name__: line
    for line in (
        *(predict, decode, first_token, threads, together, transformers_batch),
        *(second_turn, fresh_process, guided, staggered, ping, first_event),
    )
}
