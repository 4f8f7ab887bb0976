"""Memory that stays flat, and thousands of requests none of which gets another's answer."""

import gc
import random
import threading
from collections.abc import Callable
from typing import Any

import psutil
import pytest

from tests.conftest import ROOT
from tests.wrappers.subjects import Folders, Open

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

WORDS = ["river", "stone", "light", "under", "seven", "paper", "often", "green", "winter", "glass"]


def row_of(number: int) -> dict[str, Any]:
    """A deterministic row: the same number, the same answer."""
    source = random.Random(number)
    content = " ".join(source.choices(WORDS, k=source.randint(1, 12)))
    settings: dict[str, Any] = {"max_tokens": source.randint(1, 8), "temperature": 0.0}
    warm = {"temperature": 0.9, "seed": number}
    kinds: list[dict[str, Any]] = [
        {},
        {},
        warm,
        {**warm, "top_p": 0.8, "top_k": 1 + number % 60},
        {**warm, "n": 2},
        {"stop": ["e"]},
        {"repetition_penalty": 1.3},
        {"frequency_penalty": 1.5, "presence_penalty": -0.5},
        {"min_tokens": settings["max_tokens"]},
        {"response_format": {"type": "regex", "regex": "[a-f]{2}[0-9]{1,9}"}},
    ]
    settings |= source.choice(kinds)
    if number % 2:
        return {"prompt": content, **settings}
    return {"messages": [{"role": "user", "content": content}], **settings}


def said(answer: Any) -> list[str]:
    """Texts of all choices."""
    if isinstance(answer, dict):
        return [choice["message"]["content"] for choice in answer["choices"]]
    return answer if isinstance(answer, list) else [answer]


def streamed(model: Any, row: dict[str, Any]) -> list[str]:
    """Texts of all choices, out of a stream."""
    texts = [""] * row.get("n", 1)
    for chunk in model.predict_stream(None, row):
        if isinstance(chunk, str):
            texts[0] += chunk
        else:
            for choice in chunk["choices"]:
                texts[choice["index"]] += choice["delta"].get("content", "")
    return texts


def leave(model: Any, row: dict[str, Any]) -> None:
    """Begin a stream and go away."""
    stream = model.predict_stream(None, row)
    next(stream, None)
    stream.close()


@pytest.mark.parametrize("requests", [1000, pytest.param(10_000, marks=pytest.mark.volume)])
def test_requests_over_sixteen_threads(requests: int, tiny: Folders, open_onnx: Open) -> None:
    model = open_onnx(tiny.onnx("fp32"), max_queue=64)
    lone = open_onnx(tiny.onnx("fp32"), max_batch_size=1, prefix_cache_bytes=0)
    kinds = 250
    expected = [said(lone.predict(None, row_of(number))[0]) for number in range(kinds)]
    numbers = iter(range(requests))
    lock = threading.Lock()
    wrong: list[tuple[int, list[str]]] = []
    failed: list[BaseException] = []

    def work() -> None:
        while True:
            with lock:
                number = next(numbers, None)
            if number is None:
                return
            try:
                row = row_of(number % kinds)
                streams = "messages" in row or row.get("n", 1) == 1
                if streams and number % 11 == 0:
                    leave(model, row)
                    continue
                answer = (
                    streamed(model, row)
                    if streams and number % 7 == 0
                    else said(model.predict(None, row)[0])
                )
            except Exception as error:  # noqa: BLE001 - told in the main thread
                failed.append(error)
                return
            if answer != expected[number % kinds]:
                wrong.append((number % kinds, answer))

    threads = [threading.Thread(target=work) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(1500)
    assert not any(thread.is_alive() for thread in threads), "deadlock"
    assert not failed
    assert not wrong, f"{len(wrong)} answers differ from the lone ones: {wrong[:3]}"


@pytest.mark.parametrize("requests", [600, pytest.param(2000, marks=pytest.mark.volume)])
def test_memory_is_flat(requests: int, tiny: Folders, open_onnx: Open) -> None:
    model = open_onnx(tiny.onnx("fp32"), prefix_cache_bytes=4_000_000)

    def resident() -> int:
        gc.collect()
        return int(psutil.Process().memory_info().rss)

    def ask(number: int) -> None:
        if number % 5 == 4:
            leave(model, row_of(number) | {"stop": [], "n": 1})
        else:
            model.predict(None, row_of(number))

    for number in range(400):
        ask(number)
    before = resident()
    for number in range(requests):
        ask(number)
    assert resident() - before < 40_000_000


LONG_PROMPTS = """
import sys
sys.path.insert(0, {root!r})
from steps.core.peak_rss import peak_rss
from steps.wrappers.served.onnx_model import OnnxChatModel
from tests.wrappers.subjects import Context
model = OnnxChatModel()
model.load_context(Context({{"onnx-model": sys.argv[1]}}, {{"prefix_cache_bytes": 0}}))
text = "The quick brown fox jumps over the lazy dog and reads a book. " * 100
questions = [[{{"role": "user", "content": f"{{number}} {{text}}"}}] for number in range(4)]
rows = [{{"messages": asked, "max_tokens": 4, "temperature": 0.0}} for asked in questions]
before = peak_rss()
assert model.predict(None, rows)[0]["usage"]["prompt_tokens"] > 1000
print(peak_rss() - before)
"""


def test_long_prompts_are_computed_in_bounded_memory(
    smollm: Folders, in_fresh_process: Callable[..., str]
) -> None:
    """The logits of four prompts of 1,400 tokens at once are 1.1 GB, their KV caches 0.3 GB."""
    grown = in_fresh_process(LONG_PROMPTS.format(root=str(ROOT)), str(smollm.onnx("int8")))
    assert int(grown.split()[-1]) < 600e6
