"""Minutes of mixed traffic: no failed request, and memory that stays flat."""

import random
import threading
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
import requests

from tests.serving.servers import SECOND, Serving, move, serving

pytestmark = [pytest.mark.server, pytest.mark.slow, pytest.mark.timeout(1800)]

CLIENTS = 8
GROWTH = 0.03  # of a process's memory between the first and the last third of the samples
WORDS = ["river", "stone", "light", "under", "seven", "paper", "often", "green", "winter", "glass"]


def body_of(source: random.Random) -> dict[str, object]:
    """A request of mixed length and kind."""
    content = " ".join(source.choices(WORDS, k=source.choice([3, 10, 40, 120])))
    kinds: list[dict[str, object]] = [
        {},
        {"temperature": 0.9, "seed": source.randrange(1000)},
        {"n": 2, "temperature": 0.7, "seed": 1},
        {"stop": ["e"]},
        {"logprobs": True, "top_logprobs": 3},
        {"response_format": {"type": "json_object"}},
    ]
    return {
        "messages": [{"role": "user", "content": content}],
        "max_tokens": source.choice([1, 8, 24]),
        "temperature": 0,
        **source.choice(kinds),
    }


def ask(server: Serving, source: random.Random) -> str:
    """One request, and what became of it."""
    url = f"{server.url}/v1/chat/completions"
    body = body_of(source)
    kind = source.choice(["whole", "whole", "stream", "left", "invalid"])
    if kind == "invalid":
        answer = requests.post(url, json={**body, "temperature": "warm"}, timeout=120)
        return kind if answer.status_code == 400 else f"invalid: {answer.status_code}"
    if kind == "whole":
        answer = requests.post(url, json=body, timeout=120)
        return kind if answer.ok else f"whole: {answer.text[:300]}"
    with requests.post(url, json={**body, "stream": True}, stream=True, timeout=120) as answer:
        if not answer.ok:
            return f"stream: {answer.text[:300]}"
        if kind == "left":
            next(answer.iter_lines())
            return kind
        text = answer.text
    whole = text.endswith("data: [DONE]\n\n") and '"error"' not in text
    return kind if whole else f"stream: {text[-300:]}"


@dataclass(frozen=True)
class Length:
    """How much is asked.

    Attributes:
        warm_up: requests until caches and buffers have their size.
        requests: that follow at least.
        seconds: that it takes at least.
    """

    warm_up: int
    requests: int
    seconds: float


@pytest.mark.parametrize(
    "length",
    [
        pytest.param(Length(100, 150, 0), id="short"),
        pytest.param(Length(500, 1500, 600), id="ten minutes", marks=pytest.mark.volume),
    ],
)
def test_memory_is_flat_under_mixed_traffic(registry: str, tmp_path: Path, length: Length) -> None:
    move(registry, SECOND)  # its prefix cache is small, and full after the warm-up
    with serving(tmp_path, registry, wait=SECOND) as server:
        outcomes: Counter[str] = Counter()
        stop = threading.Event()

        def work(number: int) -> None:
            source = random.Random(number)
            while not stop.is_set():
                outcomes[ask(server, source)] += 1

        threads = [threading.Thread(target=work, args=(number,)) for number in range(CLIENTS)]
        for thread in threads:
            thread.start()
        (worker,) = server.workers()
        processes = {"server": server.process.pid, "worker": worker}
        samples: dict[str, list[int]] = {name: [] for name in processes}
        began = time.monotonic()
        wanted = length.warm_up + length.requests
        try:
            while outcomes.total() < wanted or time.monotonic() - began < length.seconds:
                time.sleep(0.5)
                assert any(thread.is_alive() for thread in threads)
                if outcomes.total() > length.warm_up:
                    for name, process in processes.items():
                        samples[name].append(psutil.Process(process).memory_info().rss)
        finally:
            stop.set()
            for thread in threads:
                thread.join()
        assert server.workers() == [worker]
        assert set(outcomes) == {"whole", "stream", "left", "invalid"}, outcomes
        until = time.monotonic() + 30
        while server.metric("slm_requests_active") + server.metric("slm_requests_waiting"):
            assert time.monotonic() < until, "a request was never ended"
            time.sleep(0.2)
        for name, sizes in samples.items():
            third = len(sizes) // 3
            first, last = (sorted(part)[third // 2] for part in (sizes[:third], sizes[-third:]))
            print(f"{name}: {first / 1e6:.0f} MB, then {last / 1e6:.0f} MB; {dict(outcomes)}")
            assert last < first * (1 + GROWTH), f"{name} grew from {first} to {last} bytes"
