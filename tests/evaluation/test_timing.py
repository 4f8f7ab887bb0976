"""Timings of a model whose pace is known, and the order in which candidates are asked."""

import threading
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from steps.config.evaluate import SpeedConfig
from steps.evaluation import speed, timing
from steps.evaluation.worker_process import CandidateFailedError

STEP = 0.02  # seconds a token


class Metronome:
    """Answers a token every ``STEP`` seconds."""

    def __init__(self, streams: bool) -> None:
        self.metadata = SimpleNamespace(flavors={"python_function": {"streamable": streams}})

    def predict(self, frame: Any) -> list[dict[str, Any]]:
        import time

        tokens = int(frame.iloc[0]["max_tokens"])
        time.sleep(STEP * tokens)
        return [{"usage": {"completion_tokens": tokens}}]

    def predict_stream(self, row: dict[str, Any]) -> Iterator[dict[str, Any]]:
        import time

        yield {"choices": [{"delta": {"role": "assistant"}}]}
        for _ in range(row["max_tokens"]):
            time.sleep(STEP)
            yield {"choices": [{"delta": {"content": "x"}}]}


@pytest.mark.parametrize("streams", [True, False])
def test_pace_is_measured(streams: bool) -> None:
    import pandas as pd

    assert pd.__version__  # imported before the clock starts, as it is in a worker
    taken = timing.stream(Metronome(streams), 32, 8, 1)
    assert taken["streamed"] is streams and taken["tokens"] == 8
    assert STEP <= taken["ttft_s"] < 6 * STEP  # a busy machine may be late, never early
    assert 0.2 / STEP < taken["decode_tokens_per_second"] <= 1.2 / STEP
    assert len(taken["itl_s"]) == (7 if streams else 0)


def test_burst_counts_all_requests() -> None:
    taken = timing.burst(Metronome(False), 4, 5, 1)
    assert taken["tokens"] == 20
    # they ran beside each other, and the clock saw each of them from start to end
    assert 5 * STEP <= taken["seconds"] < 4 * 5 * STEP


def test_a_burst_is_timed_from_its_first_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever waits for the threads may get to run late: the threads' own clocks count."""
    ticks = iter([10.0, 11.0, 15.0, 18.0])
    answers = threading.Barrier(2)
    monkeypatch.setattr("steps.evaluation.timing.time.perf_counter", lambda: next(ticks))

    class Together:
        def predict(self, _: Any) -> list[dict[str, Any]]:
            answers.wait()
            return [{"usage": {"completion_tokens": 3}}]

    assert timing.burst(Together(), 2, 3, 1) == {"tokens": 6, "seconds": 8.0}


def test_prompts_differ_from_their_first_words_and_grow() -> None:
    short, other, long = timing.prompt(32, 1), timing.prompt(32, 2), timing.prompt(384, 1)
    assert short[0]["content"][:8] != other[0]["content"][:8]
    assert len(long[0]["content"]) > 8 * len(short[0]["content"]) / 2


class Recorder:
    """A candidate's process that writes down what it is asked."""

    def __init__(self, name: str, asked: list[tuple[str, str]], fails: bool = False) -> None:
        self.name, self.asked, self.fails = name, asked, fails

    def ask(self, command: str, **_: Any) -> Any:
        self.asked.append((command, self.name))
        if self.fails:
            raise CandidateFailedError("gone", "")
        if command == "timed_prompt":
            return 41
        if command == "stream":
            return {
                "ttft_s": 0.1,
                "itl_s": [0.01, 0.03],
                "tokens": 3,
                "decode_tokens_per_second": 50.0,
            }
        return {"tokens": 10, "seconds": 2.0}


def test_rounds_are_interleaved_and_a_failure_stays_its_own() -> None:
    asked: list[tuple[str, str]] = []
    dead: set[str] = set()
    processes: dict[str, Any] = {
        "a": Recorder("a", asked),
        "b": Recorder("b", asked, fails=True),
        "c": Recorder("c", asked),
    }

    def guard(name: str, part: Callable[[], None]) -> None:
        if name in dead:
            return
        try:
            part()
        except CandidateFailedError:
            dead.add(name)

    taken = speed.measure(
        processes,
        SpeedConfig(warmup=1, rounds=2, prompt_tokens=[32], concurrency=[4]),
        guard,
        lambda _: None,
    )
    # warm-up, then turned round
    assert [name for command, name in asked if command == "stream"] == [
        "a",
        "b",
        "c",
        "c",
        "a",
        "a",
        "c",
    ]
    assert dead == {"b"} and taken["b"].streams == {}
    metrics = speed.metrics(taken["a"])
    assert len(taken["a"].streams[32]) == 2  # the warm-up is not among them
    assert metrics["speed/ttft_p50_s"] == 0.1 and metrics["speed/itl_p50_s"] == pytest.approx(0.02)
    assert metrics["speed/throughput_4"] == 5.0 and metrics["speed/prompt_tokens"] == 41
    # a warm-up for bursts, too
    assert [name for command, name in asked if command == "burst"] == ["a", "c", "c", "a", "a", "c"]
    assert len(taken["a"].bursts[4]) == 2
    assert "speed/ttft_long_p50_s" not in metrics


def test_percentiles_need_samples() -> None:
    """The 95th of three samples is the largest under another name: it is left out, and the range is
    given.
    """

    def timings(rounds: int) -> speed.Timings:
        one = {"itl_s": [0.01] * 10, "tokens": 11, "decode_tokens_per_second": 50.0}
        return speed.Timings(
            {32: [{**one, "ttft_s": 0.1 + number / 100} for number in range(rounds)]}
        )

    few, many = speed.metrics(timings(3)), speed.metrics(timings(20))
    assert (
        "speed/ttft_p95_s" not in few
        and few["speed/ttft_max_s"] == pytest.approx(0.12)
        and few["speed/ttft_min_s"] == 0.1
    )
    assert few["speed/itl_p95_s"] == 0.01 and "speed/itl_p99_s" not in few
    assert (
        0.28 < many["speed/ttft_p95_s"] < 0.29
        and "speed/ttft_p99_s" not in many
        and many["speed/itl_p99_s"] == 0.01
    )
    assert "speed/prompt_tokens" not in few
