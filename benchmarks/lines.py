"""The lines of the table: each measures one figure against one other, in turn."""

import os
import statistics
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from typing import Any

from benchmarks.measure import Comparison, compare, comparison
from benchmarks.scoring_server import scoring_server
from benchmarks.subjects import STORY, Subjects, chat, stream_times, timed

TOKENS = 64  # new tokens where a line does not say otherwise
FIFTY = (
    "Explain to a friend, in plain words and with two examples, why the sky is blue at noon and red"
    " in the evening."
)

Line = Callable[[Subjects, int], list[Comparison]]


def predict(subjects: Subjects, pairs: int) -> list[Comparison]:
    """``predict`` through pyfunc against the raw loop: 64 tokens, and the cost of a call."""
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
        lambda: settled(ours, STORY, TOKENS, 1),
        lambda: settled(raw.answer, STORY, TOKENS, 1),
        pairs,
    )
    one = compare(lambda: settled(ours, "Hi", 1, 9), lambda: settled(raw.answer, "Hi", 1, 9), pairs)
    fixed = [1000 * (ours - theirs) for ours, theirs in zip(*one, strict=True)]
    return [
        comparison(
            f"predict, {TOKENS} new tokens", "raw onnxruntime-genai loop", "s", whole, at_most=1.03
        ),
        comparison("fixed cost of a call", "1 ms", "ms", (fixed, [1.0] * len(fixed)), at_most=1.0),
    ]


def decode(subjects: Subjects, pairs: int) -> list[Comparison]:
    """Tokens a second while decoding, against transformers in float32."""
    ours, theirs = subjects.load("onnx", prefix_cache_bytes=0), subjects.load("transformers")
    row = chat(STORY, max_tokens=TOKENS)
    values = compare(
        lambda: 1 / stream_times(ours, row)[1], lambda: 1 / stream_times(theirs, row)[1], pairs
    )
    return [
        comparison(
            "decode, default build", "transformers float32", "tokens/s", values, at_least=6.0
        )
    ]


def threads(subjects: Subjects, pairs: int) -> list[Comparison]:
    """Decoding on every core this process may use, against half of the processors: what
    onnxruntime-genai takes when it is not told.
    """
    half = max(1, (os.cpu_count() or 1) // 2)
    ours, theirs = (
        subjects.load("onnx", prefix_cache_bytes=0, threads=threads) for threads in (0, half)
    )
    row = chat(STORY, max_tokens=TOKENS)
    values = compare(
        lambda: 1 / stream_times(ours, row)[1], lambda: 1 / stream_times(theirs, row)[1], pairs
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


def llama_cpp(subjects: Subjects, pairs: int) -> list[Comparison]:
    """Decoding and first token against llama.cpp on the GGUF, where it is installed."""
    from benchmarks.llama_cpp_peer import open_peer

    peer = open_peer()
    model = subjects.load("onnx", prefix_cache_bytes=0)
    row = chat(FIFTY, max_tokens=TOKENS)
    mine: list[tuple[float, float]] = []
    other: list[tuple[float, float]] = []

    def ours() -> float:
        mine.append(stream_times(model, row))
        return mine[-1][0]

    def theirs() -> float:
        other.append(peer.times(FIFTY, TOKENS))
        return other[-1][0]

    first = compare(ours, theirs, pairs)
    speeds = ([1 / between for _, between in mine[1:]], [1 / between for _, between in other[1:]])
    return [
        comparison("decode", "llama-cpp-python", "tokens/s", speeds, at_least=1.1),
        comparison(
            "time to first token, 50-token prompt", "llama-cpp-python", "s", first, at_most=0.75
        ),
    ]


def together(subjects: Subjects, pairs: int) -> list[Comparison]:
    """Eight requests at once through threads, against the same one by one."""
    model = subjects.load("onnx", prefix_cache_bytes=0)
    rows = [
        chat(f"{STORY} Make it story number {number}.", max_tokens=TOKENS) for number in range(8)
    ]
    total = 8 * TOKENS
    with ThreadPoolExecutor(8) as pool:
        values = compare(
            lambda: total / timed(lambda: list(pool.map(model.predict, rows))),
            lambda: total / timed(lambda: [model.predict(row) for row in rows]),
            pairs,
        )
    return [comparison("8 requests at once", "one by one", "tokens/s", values, at_least=1.5)]


def second_turn(subjects: Subjects, pairs: int) -> list[Comparison]:
    """First token of a second turn after 400 tokens of history, against a fresh generator."""
    warm, cold = subjects.load("onnx"), subjects.load("onnx", prefix_cache_bytes=0)
    numbers = count()

    def turn(model: Any) -> float:
        question = (
            f"Conversation {next(numbers)}. "
            + "Here is what I know about foxes and their ways. " * 34
        )
        messages = [{"role": "user", "content": question}]
        answer = model.predict({"messages": messages, "max_tokens": 8, "temperature": 0.0})[0][
            "choices"
        ][0]["message"]["content"]
        messages.append({"role": "assistant", "content": answer})
        messages.append({"role": "user", "content": "Is that all?"})
        return stream_times(model, {"messages": messages, "max_tokens": 4, "temperature": 0.0})[0]

    values = compare(lambda: turn(warm), lambda: turn(cold), pairs)
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
print(loaded, psutil.Process().memory_info().rss)
"""


def fresh_process(subjects: Subjects, pairs: int) -> list[Comparison]:
    """Loading in a fresh process, and its memory after one chat, against transformers."""
    seconds: dict[str, list[float]] = {"onnx": [], "transformers": []}
    held: dict[str, list[float]] = {"onnx": [], "transformers": []}

    def measure(variant: str) -> float:
        loaded, resident = subjects.in_process(FRESH, variant)
        seconds[variant].append(loaded)
        held[variant].append(resident / 1e6)
        return loaded

    compare(lambda: measure("onnx"), lambda: measure("transformers"), pairs)
    memory, load = ((values["onnx"][1:], values["transformers"][1:]) for values in (held, seconds))
    return [
        comparison("RSS, loaded and one chat", "transformers version", "MB", memory, at_most=0.4),
        comparison("load in a fresh process", "transformers version", "s", load, at_most=0.3),
    ]


def guided(subjects: Subjects, pairs: int) -> list[Comparison]:
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
    held = chat("List people", max_tokens=TOKENS, response_format=people)
    free = chat(STORY, max_tokens=TOKENS)
    values = compare(
        lambda: 1000 * stream_times(model, held)[1],
        lambda: 1000 * stream_times(model, free)[1],
        pairs,
    )
    return [comparison("JSON-schema guided, a token", "unguided", "ms", values, at_most=1.3)]


def served(subjects: Subjects, pairs: int) -> list[Comparison]:
    """Four requests at once through ``mlflow models serve``, against the naive wrapper."""
    import requests

    with (
        scoring_server(subjects, "onnx") as ours,
        scoring_server(subjects, "naive") as theirs,
        ThreadPoolExecutor(4) as pool,
    ):

        def ask(url: str) -> Callable[[], float]:
            def post(number: int) -> None:
                messages = chat(f"{STORY} Number {number}.")["messages"]
                row = {"messages": messages, "max_tokens": TOKENS}
                requests.post(f"{url}/invocations", json=row, timeout=300).raise_for_status()

            return lambda: timed(lambda: list(pool.map(post, range(4))))

        values = compare(ask(ours), ask(theirs), pairs)
    return [
        comparison(
            "4 requests at once, mlflow models serve", "naive wrapper", "s", values, at_most=0.75
        )
    ]


LINES: dict[str, Line] = {
    line.__name__: line
    for line in (
        *(predict, decode, threads, llama_cpp, together),
        *(second_turn, fresh_process, guided, served),
    )
}
