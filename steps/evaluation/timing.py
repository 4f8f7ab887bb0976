"""Timings on a loaded model, in its own process. Imports nothing of ``steps``: the worker loads
this file by its path.
"""

import itertools
import threading
import time
from typing import Any

# Plain words of about one token each; a prompt of n tokens takes the first n.
TEXT = (
    "the river runs past the old mill and the children of the village fish there in the evening"
    " while the miller counts his sacks and his wife reads the letters that came by the morning"
    " boat from the town at the mouth of the river where their son works"
)
WORDS = TEXT.split()


def prompt(tokens: int, nonce: int) -> list[dict[str, str]]:
    """A chat of about ``tokens`` prompt tokens; ``nonce`` comes first, so that no prefix cache can
    shorten the next one.
    """
    words = [WORDS[index % len(WORDS)] for index in range(max(1, tokens - 24))]
    return [
        {
            "role": "user",
            "content": (
                f"Text {nonce}: {' '.join(words)}.\nWrite a long story that goes on from here."
            ),
        }
    ]


def stream(model: Any, prompt_tokens: int, new_tokens: int, nonce: int) -> dict[str, Any]:
    """Time one streamed answer.

    Returns:
        ``ttft_s`` (seconds to the first piece of text), ``itl_s`` (seconds between pieces),
        ``total_s``, ``tokens``, ``decode_tokens_per_second``, and ``streamed``: false where the
        model cannot stream; then only the total is known and the first token's time is that of an
        answer of one token.
    """
    row = {"messages": prompt(prompt_tokens, nonce), "max_tokens": new_tokens, "temperature": 0.0}
    if can_stream(model):
        return _streamed(model, row)
    started = time.perf_counter()
    model.predict(
        _frame({**row, "max_tokens": 1, "messages": prompt(prompt_tokens, nonce + 500_000)})
    )
    first = time.perf_counter() - started
    started = time.perf_counter()
    tokens = _tokens(model.predict(_frame(row)))
    total = time.perf_counter() - started
    rate = (tokens - 1) / (total - first) if tokens > 1 and total > first else 0.0
    return {
        "ttft_s": first,
        "itl_s": [],
        "total_s": total,
        "tokens": tokens,
        "decode_tokens_per_second": rate,
        "streamed": False,
    }


def can_stream(model: Any) -> bool:
    """Whether the loaded pyfunc streams."""
    return bool(model.metadata.flavors["python_function"].get("streamable", False))


def _streamed(model: Any, row: dict[str, Any]) -> dict[str, Any]:
    started = time.perf_counter()
    times: list[float] = []
    tokens = 0
    for chunk in model.predict_stream(row):
        now = time.perf_counter()
        usage = chunk.get("usage") or {}
        tokens = int(usage.get("completion_tokens") or tokens)
        deltas = [choice.get("delta") or {} for choice in chunk.get("choices", [])]
        if any(delta.get("content") or delta.get("reasoning_content") for delta in deltas):
            times.append(now)
    ended = time.perf_counter()
    if not times:
        raise RuntimeError("the stream held no text")
    tokens = tokens or len(times)
    span = times[-1] - times[0]
    return {
        "ttft_s": times[0] - started,
        "itl_s": [after - before for before, after in itertools.pairwise(times)],
        "total_s": ended - started,
        "tokens": tokens,
        "decode_tokens_per_second": (tokens - 1) / span if tokens > 1 and span > 0 else 0.0,
        "streamed": True,
    }


def burst(model: Any, concurrency: int, new_tokens: int, nonce: int) -> dict[str, Any]:
    """``concurrency`` requests at once, one thread each: tokens, seconds from the first start to
    the last end.

    Each thread looks at the clock itself: a thread that waits for all would start its clock late,
    as it has to be given the GIL first.
    """
    counts: list[int] = []
    starts: list[float] = []
    ends: list[float] = []
    errors: list[BaseException] = []
    gate = threading.Barrier(concurrency)

    def ask(index: int) -> None:
        frame = _frame(
            {"messages": prompt(48, nonce + index), "max_tokens": new_tokens, "temperature": 0.0}
        )
        gate.wait()
        starts.append(time.perf_counter())
        try:
            counts.append(_tokens(model.predict(frame)))
            ends.append(time.perf_counter())
        except Exception as error:  # noqa: BLE001 - handed to the caller below
            errors.append(error)

    threads = [threading.Thread(target=ask, args=(index,)) for index in range(concurrency)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    return {"tokens": sum(counts), "seconds": max(ends) - min(starts)}


def _frame(row: dict[str, Any]) -> Any:
    import pandas as pd

    return pd.DataFrame([row])


def _tokens(response: Any) -> int:
    completion = response[0] if isinstance(response, list) else response
    return int(completion["usage"]["completion_tokens"])
