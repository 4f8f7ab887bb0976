"""What comes from a candidate's process is looked at before the evaluation counts with it."""

import json
import math
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest

from steps.evaluation import replies
from steps.evaluation.worker import Worker
from steps.evaluation.worker_process import (
    CandidateFailedError,
    CandidateProcess,
    Limits,
    ModelError,
)

ANSWER = {"text": "hi", "finish_reason": "stop", "completion_tokens": 1, "latency_s": 0.1}
NO_ANSWER: tuple[Any, ...] = (None, [], {}, 5, "text", {**ANSWER, "more": 1})
NO_TEXT: tuple[Any, ...] = (5, None, {"a": 1}, [1], "x" * (replies.LONGEST_ANSWER + 1))
NO_REASON: tuple[Any, ...] = ({"a": 1}, [], 5)
HUGE = "1" + "0" * 400


def test_every_command_has_a_check() -> None:
    assert set(replies.CHECKS) == {name for name in vars(Worker) if not name.startswith("_")}


@pytest.mark.parametrize(
    ("command", "result"),
    [
        ("load", {"ready_s": 0.7}),
        ("answer", ANSWER),
        (
            "answer",
            {**ANSWER, "text": "", "finish_reason": None, "completion_tokens": 0, "latency_s": 0},
        ),
        ("answer_next", {"number": 0, "answer": ANSWER, "error": None}),
        ("answer_next", {"number": 7, "answer": None, "error": "RuntimeError: no"}),
        ("prompt_tokens", None),
        ("conformance", [{"name": "n", "passed": False, "limit": None, "detail": "\x00\x1b[31m"}]),
        (
            "stream",
            {
                "ttft_s": 1.0,
                "itl_s": [],
                "total_s": 2.0,
                "tokens": 4,
                "decode_tokens_per_second": 0.0,
                "streamed": False,
            },
        ),
        ("burst", {"tokens": 8, "seconds": 0.5}),
        ("open_meter", {"vocabulary": 8, "bos": [], "context": 8192, "borders": [4096]}),
        ("render", None),
        ("write_logits", None),
        ("compare_logits", {"kl": [0.0], "agree": [1.0], "nll": [], "nll_reference": []}),
        ("peak_rss", 1 << 40),
    ],
)
def test_an_honest_reply_stays_as_it_is(command: str, result: Any) -> None:
    assert replies.checked(command, json.loads(json.dumps(result))) == result


@pytest.mark.parametrize(
    ("command", "result"),
    [
        *(("answer", value) for value in NO_ANSWER),
        *(("answer", {**ANSWER, "text": value}) for value in NO_TEXT),
        *(("answer", {**ANSWER, "finish_reason": value}) for value in NO_REASON),
        *(
            ("answer", {**ANSWER, "completion_tokens": value})
            for value in ("a", True, 1.5, math.nan, -1, 10**400)
        ),
        *(
            ("answer", {**ANSWER, "latency_s": value})
            for value in ("b", True, math.nan, math.inf, -1.0, 10**400, -(10**400))
        ),
        *(
            ("answer_next", {"number": 1, "answer": answer, "error": error})
            for answer, error in ((None, None), (ANSWER, "both"), ({**ANSWER, "text": 5}, None))
        ),
        ("answer_next", {"number": -1, "answer": ANSWER, "error": None}),
        ("answer_next", ANSWER),
        *(("load", value) for value in (None, "x", {"ready_s": "x"}, {"ready_s": math.nan})),
        *(("peak_rss", value) for value in (None, "1", 1e8, True, 1 << 51, -1)),
        ("conformance", [["name", "passed"]]),
        ("conformance", [{"name": "n", "passed": 1, "limit": None, "detail": ""}]),
        ("timed_prompt", None),
        ("burst", {"tokens": 8, "seconds": 0}),
        ("compare_logits", {"kl": [], "agree": [], "nll": [], "nll_reference": []}),
        ("write_logits", 1),
    ],
)
def test_what_no_worker_says_is_refused(command: str, result: Any) -> None:
    with pytest.raises(ValueError, match=r"expected|not from|at most"):
        replies.checked(command, result)


def test_half_characters_are_replaced() -> None:
    text = (
        r'{"text": "\ud800 hi \ud83d\ude00", "finish_reason": "\udfff", "completion_tokens": 1,'
        r' "latency_s": 1}'
    )
    said = replies.checked("answer", json.loads(text))
    assert (said["text"], said["finish_reason"]) == ("\ufffd hi \U0001f600", "\ufffd")


@pytest.fixture
def speak() -> Iterator[Any]:
    """Start a candidate whose worker runs the given code; the socket is ``s``."""
    started: list[CandidateProcess] = []

    def start(code: str, seconds: float = 20.0) -> CandidateProcess:
        def command(descriptor: int) -> list[str]:
            begin = (
                "import json, os, socket, sys, time\n"
                f"s = socket.socket(fileno={descriptor})\nlines = s.makefile('rb')\n"
            )
            return [sys.executable, "-I", "-c", begin + code]

        process = CandidateProcess("speaker", Limits(60, seconds), command=command)
        started.append(process)
        process.start()
        return process

    yield start
    for process in started:
        process.kill("over")
        process.close()


def reply(text: str) -> str:
    return f"lines.readline(); s.sendall({text.encode()!r} + b'\\n'); time.sleep(60)"


@pytest.mark.parametrize(
    "text",
    [
        '{"result": {"text": 5, "finish_reason": [], "completion_tokens": "a", "latency_s": "b"}}',
        '{"result": {"text": "a", "finish_reason": null, "completion_tokens": NaN,'
        ' "latency_s": Infinity}}',
        '{"result": {"text": "a", "finish_reason": null, "latency_s": 1,'
        f' "completion_tokens": {HUGE}}}}}',
        '{"result": null}',
        "[]",
        "{}",
        '{"result": {}, "error": "x"}',
        '{"error": 5, "kind": "ValueError"}',
        '{"error": "e", "kind": {}}',
        '{"result": ' + "[" * 400 + "]" * 400 + "}",
    ],
)
def test_one_odd_candidate_fails_alone(speak: Any, text: str) -> None:
    """Any of these ended the evaluation of all candidates."""
    process = speak(reply(text))
    with pytest.raises(
        CandidateFailedError, match="broken: its reply to 'answer' is not the worker's"
    ):
        process.ask("answer", messages=[], max_tokens=1)
    assert not process.alive


def test_an_error_can_be_written(speak: Any) -> None:
    process = speak(reply(r'{"error": "RuntimeError: \ud800", "kind": "RuntimeError"}'))
    with pytest.raises(ModelError, match="RuntimeError: \ufffd"):
        process.ask("answer", messages=[], max_tokens=1)
    assert process.alive


def test_logits_that_are_not_finite_are_no_ill_will(speak: Any) -> None:
    """A checkpoint that masks tokens with minus infinity makes them."""
    process = speak(
        reply('{"result": {"kl": [NaN], "agree": [1.0], "nll": [], "nll_reference": []}}')
    )
    with pytest.raises(ModelError, match="not a number"):
        process.ask("compare_logits", ids=[], file="x")
    assert process.alive


def test_a_worker_that_no_longer_reads_is_ended(speak: Any) -> None:
    """The buffer between the two is full: a plain send waits for ever."""
    process = speak("time.sleep(60)", seconds=1.0)
    started = time.monotonic()
    with pytest.raises(CandidateFailedError, match="hung: 'answer' did not end within the limit"):
        process.ask("answer", messages=["x" * (1 << 23)], max_tokens=1)
    assert not process.alive and time.monotonic() - started < 15


@pytest.mark.parametrize("apart", ["", "time.sleep(0.3)"])
def test_nothing_is_answered_before_it_is_asked(speak: Any, apart: str) -> None:
    line = json.dumps({"result": ANSWER}).encode() + b"\n"
    process = speak(
        f"lines.readline(); s.sendall({line!r}); {apart or 'pass'}; s.sendall({line!r});"
        " s.sendall(b'x'); time.sleep(60)"
    )
    assert process.ask("answer", messages=[], max_tokens=1) == ANSWER
    time.sleep(0.8)
    with pytest.raises(CandidateFailedError, match="it came before the command"):
        process.ask("answer", messages=[], max_tokens=1)


def test_a_dead_worker_is_said_to_be_dead(speak: Any) -> None:
    process = speak("os._exit(3)")
    while process.alive:
        time.sleep(0.05)
    with pytest.raises(CandidateFailedError, match="crashed: exit code 3 during 'answer'"):
        process.ask("answer", messages=["x" * (1 << 20)], max_tokens=1)
