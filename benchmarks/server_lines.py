"""The lines of the table that ask ``mlflow models serve`` over HTTP, as users run it."""

import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from benchmarks import clients
from benchmarks.measure import Effort, LeftOut, Row, comparison
from benchmarks.peers import NotInstalledError
from benchmarks.scoring_server import scoring_server
from benchmarks.subjects import Subjects

LLAMA_CPP = "llama.cpp server Q8_0"
PING_EVERY = 0.02  # seconds


@dataclass(frozen=True)
class Load:
    """What clients got in one round.

    Args:
        rate: tokens a second of all of them.
        p95: seconds of an answer.
    """

    rate: float
    p95: float


def staggered(subjects: Subjects, effort: Effort) -> list[Row]:
    """Closed-loop clients against llama.cpp's server, the same questions for both in each round."""
    peer = None
    reason = ""
    try:
        peer = subjects.peer("llama_cpp")
    except NotInstalledError as error:
        reason = str(error)
    with scoring_server(subjects, "onnx") as url:
        urls = {"ours": f"{url}/invocations"}
        if peer:
            urls[LLAMA_CPP] = f"{peer.url}/v1/chat/completions"
        values = rounds(urls, effort)
    rows: list[Row] = []
    for number in effort.clients:
        figure = f"staggered, {number} client{'s' * (number > 1)}"
        slowest = f"{figure}, p95 of an answer"
        if peer is None:
            rows += [LeftOut(name, LLAMA_CPP, reason) for name in (figure, slowest)]
            continue
        ours, theirs = values["ours", number], values[LLAMA_CPP, number]
        rates = [load.rate for load in ours], [load.rate for load in theirs]
        p95s = [load.p95 for load in ours], [load.p95 for load in theirs]
        rows.append(comparison(figure, LLAMA_CPP, "tokens/s", rates, at_least=1.0))
        rows.append(comparison(slowest, LLAMA_CPP, "s", p95s, at_most=1.0))
    if {1, 8} <= set(effort.clients):
        eight, one = ([load.rate for load in values["ours", number]] for number in (8, 1))
        rows.append(
            comparison("staggered, 8 clients", "1 client", "tokens/s", (eight, one), at_least=2.0)
        )
    return rows


def rounds(urls: dict[str, str], effort: Effort) -> dict[tuple[str, int], list[Load]]:
    """Loads by server and number of clients, round by round, the servers in turn."""
    values: dict[tuple[str, int], list[Load]] = {
        (name, number): [] for name in urls for number in effort.clients
    }
    for url in urls.values():
        clients.run(clients.ask_over_http(url), 1, 0.1, "warm")
    for part in range(effort.rounds):
        for at, number in enumerate(effort.clients):
            turn = list(urls) if (part + at) % 2 else list(reversed(urls))
            for name in turn:
                answers = clients.run(
                    clients.ask_over_http(urls[name]),
                    number,
                    effort.seconds,
                    f"round {part}, {number} clients",
                )
                rate = clients.tokens_within(answers, effort.seconds) / effort.seconds
                values[name, number].append(Load(rate, clients.p95(answers)))
    return values


def ping(subjects: Subjects, effort: Effort) -> list[Row]:
    """99th percentile of ``/ping`` while eight clients are served."""
    with scoring_server(subjects, "onnx") as url:
        ask = clients.ask_over_http(f"{url}/invocations")
        clients.run(ask, 1, 0.1, "warm")
        values = [
            1000 * _slow_ping(url, ask, effort.seconds, f"ping, round {part}")
            for part in range(effort.rounds)
        ]
    bar = [50.0] * len(values)
    return [comparison("/ping p99, 8 clients served", "50 ms", "ms", (values, bar), at_most=1.0)]


def _slow_ping(
    url: str, ask: Callable[[Any, clients.Question], int], seconds: float, seed: str
) -> float:
    """Seconds of the slowest hundredth of pings, from when the last client has begun."""
    import requests

    took: list[float] = []
    with ThreadPoolExecutor(1) as pool, requests.Session() as session:
        load = pool.submit(clients.run, ask, 8, seconds, seed)
        time.sleep(clients.SPREAD)
        until = time.perf_counter() + seconds - clients.SPREAD
        while time.perf_counter() < until or len(took) < 2:
            started = time.perf_counter()
            session.get(f"{url}/ping", timeout=60).raise_for_status()
            took.append(time.perf_counter() - started)
            time.sleep(PING_EVERY)
        load.result()
    return statistics.quantiles(took, n=100, method="inclusive")[-1]
