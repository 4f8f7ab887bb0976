"""Speed and cost: rounds interleaved across the candidates, so that what the machine does meanwhile
touches all of them alike.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from steps.config.evaluate import SpeedConfig
from steps.evaluation import statistics
from steps.evaluation.worker_process import CandidateProcess

# percentile: samples below which it would be no more than the largest one under another name
TAILS = {95: 20, 99: 100}


@dataclass
class Timings:
    """Raw timings of one candidate, in seconds; prompts are numbered in the order of
    ``speed.prompt_tokens``.
    """

    # prompt tokens: one entry a round
    streams: dict[int, list[dict[str, Any]]] = field(default_factory=dict)
    # prompt tokens asked for: as the model counts them
    prompts: dict[int, int] = field(default_factory=dict)
    # concurrency: tokens per second, one a round
    bursts: dict[int, list[float]] = field(default_factory=dict)


def steps(config: SpeedConfig) -> int:
    """Timed and untimed requests that one candidate answers, bursts counted once."""
    return (config.warmup + config.rounds) * (len(config.prompt_tokens) + len(config.concurrency))


def measure(
    processes: Mapping[str, CandidateProcess],
    config: SpeedConfig,
    guard: Callable[[str, Callable[[], None]], None],
    advance: Callable[[str], None],
) -> dict[str, Timings]:
    """Time all candidates in turn, round by round.

    Args:
        processes: loaded candidates by name.
        guard: runs one candidate's part and keeps its failure to itself.
        advance: told the candidate's name after each request.
    """
    timings = {name: Timings() for name in processes}

    def stream(name: str, tokens: int, nonce: int, keep: bool) -> None:
        timing = processes[name].ask(
            "stream", prompt_tokens=tokens, new_tokens=config.new_tokens, nonce=nonce
        )
        if keep:
            timings[name].streams.setdefault(tokens, []).append(timing)

    def burst(name: str, concurrency: int, nonce: int, keep: bool) -> None:
        timing = processes[name].ask(
            "burst",
            requests=concurrency,
            concurrency=concurrency,
            new_tokens=config.burst_tokens,
            nonce=nonce,
        )
        if keep:
            rate = timing["tokens"] / timing["seconds"]
            timings[name].bursts.setdefault(concurrency, []).append(rate)

    def count(name: str, tokens: int) -> None:
        counted = processes[name].ask("timed_prompt", prompt_tokens=tokens)
        timings[name].prompts[tokens] = counted

    nonce = 0
    for number in range(config.warmup + config.rounds):
        keep = number >= config.warmup
        # no candidate is always first
        order = list(processes) if number % 2 == 0 else list(reversed(list(processes)))
        for tokens in config.prompt_tokens:
            nonce += 1
            for name in order:
                guard(name, partial(stream, name, tokens, nonce, keep))
                advance(name)
        for concurrency in config.concurrency:
            nonce += 100
            for name in order:
                guard(name, partial(burst, name, concurrency, nonce, keep))
                advance(name)
    for name in processes:
        for tokens in config.prompt_tokens:
            guard(name, partial(count, name, tokens))
    return timings


def metrics(timings: Timings) -> dict[str, float]:
    """Medians, ranges, and percentiles where there are samples enough.

    The shortest prompt is the one that the plain names speak of, the longest has ``_long``.
    """
    figures: dict[str, float] = {}
    lengths = sorted(timings.streams)
    for suffix, tokens in zip(("", "_long"), lengths[:1] + lengths[1:][-1:], strict=False):
        rounds = timings.streams[tokens]
        first = [stream["ttft_s"] for stream in rounds]
        between = [gap for stream in rounds for gap in stream["itl_s"]]
        rates = [stream["decode_tokens_per_second"] for stream in rounds]
        figures |= _latency(f"speed/ttft{suffix}", first)
        figures |= _latency(f"speed/itl{suffix}", between)
        if tokens in timings.prompts:
            figures[f"speed/prompt_tokens{suffix}"] = float(timings.prompts[tokens])
        name = f"speed/decode{suffix}_tokens_per_second"
        figures |= _rate(name, [rate for rate in rates if rate > 0])
    for concurrency, rates in timings.bursts.items():
        figures |= _rate(f"speed/throughput_{concurrency}", rates)
    return figures


def _rate(name: str, rates: Sequence[float]) -> dict[str, float]:
    if not rates:
        return {}
    middle = statistics.percentile(rates, 50)
    return {name: middle, f"{name}_min": min(rates), f"{name}_max": max(rates)}


def _latency(name: str, values: Sequence[float]) -> dict[str, float]:
    if not values:
        return {}
    quantiles = [50, *(q for q, least in TAILS.items() if len(values) >= least)]
    return {
        f"{name}_min_s": min(values),
        f"{name}_max_s": max(values),
        **{f"{name}_p{q}_s": statistics.percentile(values, q) for q in quantiles},
    }


def series(timings: Timings) -> dict[str, Any]:
    """Raw timings for the report's pictures."""
    return {
        "streams": {str(tokens): rounds for tokens, rounds in timings.streams.items()},
        "bursts": {str(concurrency): rates for concurrency, rates in timings.bursts.items()},
        "prompts": {str(tokens): counted for tokens, counted in timings.prompts.items()},
    }
