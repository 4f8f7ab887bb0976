"""The lines of the table that ask servers over HTTP, as users run them."""

import statistics
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from benchmarks import clients
from benchmarks.measure import Effort, LeftOut, Row, compare, comparison
from benchmarks.own_server import own_server
from benchmarks.peers import NotInstalledError
from benchmarks.scoring_server import scoring_server
from benchmarks.subjects import Subjects

LLAMA_CPP, SCORING, SERVE = "llama.cpp server Q8_0", "mlflow models serve", "serve"
SLOWEST = ", p95 of an answer"
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
    """Closed-loop clients of ``mlflow models serve``, of ``serve`` and of llama.cpp's server, the
    same questions for all in each round.
    """
    peer = None
    reason = ""
    try:
        peer = subjects.peer("llama_cpp")
    except NotInstalledError as error:
        reason = str(error)
    with scoring_server(subjects, "onnx") as scoring, own_server(subjects, "onnx") as own:
        urls = {
            SCORING: f"{scoring}/invocations",
            SERVE: f"{own}/v1/chat/completions",
        }
        if peer:
            urls[LLAMA_CPP] = f"{peer.url}/v1/chat/completions"
        values = rounds(urls, effort)
    rows: list[Row] = []
    for number in effort.clients:
        clients_ = f"{number} client{'s' * (number > 1)}"
        for ours in (SCORING, SERVE):
            figure = f"staggered, {ours}, {clients_}"
            if peer is None:
                rows += [LeftOut(f"{figure}{end}", LLAMA_CPP, reason) for end in ("", SLOWEST)]
                continue
            rows += _beside(figure, values[ours, number], LLAMA_CPP, values[LLAMA_CPP, number])
        rows += _beside(
            f"staggered, {SERVE}, {clients_}",
            values[SERVE, number],
            SCORING,
            values[SCORING, number],
            at_least=2.0 if number == 8 else None,
        )
    if {1, 8} <= set(effort.clients):
        for ours in (SCORING, SERVE):
            eight, one = ([load.rate for load in values[ours, number]] for number in (8, 1))
            figure = f"staggered, {ours}, 8 clients"
            rows.append(comparison(figure, "1 client", "tokens/s", (eight, one), at_least=2.0))
    return rows


def _beside(
    figure: str,
    ours: Sequence[Load],
    against: str,
    theirs: Sequence[Load],
    *,
    at_least: float | None = 1.0,
) -> list[Row]:
    """Rate and slowest answers of two servers, round by round."""
    rates = [load.rate for load in ours], [load.rate for load in theirs]
    p95s = [load.p95 for load in ours], [load.p95 for load in theirs]
    at_most = 1.0 if against == LLAMA_CPP else None
    return [
        comparison(figure, against, "tokens/s", rates, at_least=at_least),
        comparison(f"{figure}{SLOWEST}", against, "s", p95s, at_most=at_most),
    ]


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
    """99th percentile of ``/ping`` and ``/healthz`` while eight clients are served."""
    rows: list[Row] = []
    for served, address, path in (
        (scoring_server, "/invocations", "/ping"),
        (own_server, "/v1/chat/completions", "/healthz"),
    ):
        with served(subjects, "onnx") as url:
            ask = clients.ask_over_http(f"{url}{address}")
            clients.run(ask, 1, 0.1, "warm")
            values = [
                1000 * _slow_ping(f"{url}{path}", ask, effort.seconds, f"ping, round {part}")
                for part in range(effort.rounds)
            ]
        figure = f"{path} p99, 8 clients served"
        bar = [50.0] * len(values)
        rows.append(comparison(figure, "50 ms", "ms", (values, bar), at_most=1.0))
    return rows


def first_event(subjects: Subjects, effort: Effort) -> list[Row]:
    """The first streamed text of ``serve`` against a whole answer of 64 tokens."""
    import requests

    with own_server(subjects, "onnx") as url, requests.Session() as session:

        def seconds(stream: bool, number: int) -> float:
            # another beginning every time: nothing of it is kept
            content = f"{number} {time.perf_counter()}: tell a long story about a fox."
            body = {"messages": [{"role": "user", "content": content}], "stream": stream}
            body |= {"max_tokens": 64, "temperature": 0.0}
            started = time.perf_counter()
            address = f"{url}/v1/chat/completions"
            with session.post(address, json=body, stream=True, timeout=120) as answer:
                answer.raise_for_status()
                if not stream:
                    _ = answer.content
                    return time.perf_counter() - started
                for line in answer.iter_lines():
                    if b'"content":"' in line and b'"content":""' not in line:
                        break
                took = time.perf_counter() - started
                _ = list(answer.iter_lines())
            return took

        values = compare(lambda: seconds(True, 0), lambda: seconds(False, 1), effort)
    return [comparison("serve, first streamed text", "64 tokens whole", "s", values, at_most=0.25)]


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
            session.get(url, timeout=60).raise_for_status()
            took.append(time.perf_counter() - started)
            time.sleep(PING_EVERY)
        load.result()
    return statistics.quantiles(took, n=100, method="inclusive")[-1]
