"""Closed-loop clients: each sends a chat request, waits for the answer, sends the next."""

import statistics
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from random import Random
from typing import Any

WORDS = """
river mountain lantern sailor harbour garden winter letter teacher market bridge island kitchen
forest engine window summer planet doctor village carpet thunder orange violin library captain
meadow candle horse tower silver basket shadow morning castle paper stone farmer ocean mirror
apple story soldier valley bakery neighbour holiday train puzzle feather museum rabbit school
travel honey desert painter evening button cousin
"""
SHORTEST, LONGEST = 20, 250  # words of a prompt
FEWEST, MOST = 16, 64  # new tokens
INTRODUCTION = "Write a long and detailed story in which all of these words have a place:"
SPREAD = 1.0  # seconds within which the clients begin


@dataclass(frozen=True)
class Question:
    """A prompt and the most tokens its answer may have."""

    content: str
    limit: int


@dataclass(frozen=True)
class Answered:
    """When a request began and ended, in seconds of the load, and the tokens of its answer."""

    started: float
    ended: float
    tokens: int


def questions(seed: str) -> Iterator[Question]:
    """A client's questions without end; the same seed gives the same ones."""
    random, vocabulary = Random(seed), WORDS.split()
    while True:
        words = random.randint(SHORTEST, LONGEST) - len(INTRODUCTION.split())
        chosen = " ".join(random.choices(vocabulary, k=max(words, 1)))
        yield Question(f"{INTRODUCTION} {chosen}.", random.randint(FEWEST, MOST))


def tokens_within(answers: Sequence[Answered], seconds: float) -> float:
    """Tokens of the first `seconds`: an answer that ends later counts by the share of its time that
    lies before.
    """
    return sum(
        answer.tokens
        * min(1.0, max(0.0, seconds - answer.started) / (answer.ended - answer.started))
        for answer in answers
    )


def p95(answers: Sequence[Answered]) -> float:
    """95th percentile of the seconds that an answer took."""
    took = [answer.ended - answer.started for answer in answers]
    return statistics.quantiles(took, n=20, method="inclusive")[-1] if len(took) > 1 else took[0]


def run(
    ask: Callable[[Any, Question], int], clients: int, seconds: float, seed: str
) -> list[Answered]:
    """Every answer to a request that was sent within `seconds`.

    Args:
        ask: sends a question over a session of ``requests``; gives the tokens of the answer.
        clients: how many ask at a time.
        seconds: how long they go on asking; the last answers are waited for.
        seed: decides the questions and when each client begins.
    """
    import requests

    gate = threading.Barrier(clients)

    def client(number: int) -> list[Answered]:
        name = f"{seed}, client {number}"
        pause = Random(name).uniform(0, min(SPREAD, seconds / 2)) if clients > 1 else 0
        answers: list[Answered] = []
        with requests.Session() as session:
            gate.wait()
            opened = time.perf_counter()
            time.sleep(pause)
            for question in questions(name):
                started = time.perf_counter() - opened
                if started >= seconds:
                    break
                tokens = ask(session, question)
                answers.append(Answered(started, time.perf_counter() - opened, tokens))
        return answers

    with ThreadPoolExecutor(clients) as pool:
        return [answer for answers in pool.map(client, range(clients)) for answer in answers]


def ask_over_http(url: str) -> Callable[[Any, Question], int]:
    """Ask greedily at an address that takes chat completions.

    An answer that is an error, is empty or has more tokens than were asked for raises: it would
    make a server fast.
    """

    def ask(session: Any, question: Question) -> int:
        body: dict[str, Any] = {"messages": [{"role": "user", "content": question.content}]}
        body |= {"max_tokens": question.limit, "temperature": 0.0}
        response = session.post(url, json=body, timeout=300)
        if response.status_code != 200:
            raise RuntimeError(f"{url} answered {response.status_code}: {response.text[:500]}")
        answer = response.json()
        answer = answer[0] if isinstance(answer, list) else answer
        tokens = int(answer["usage"]["completion_tokens"])
        text = answer["choices"][0]["message"]["content"]
        if not text or not 0 < tokens <= question.limit:
            raise RuntimeError(f"{url} answered {tokens} of {question.limit} tokens: {text!r}")
        return tokens

    return ask
