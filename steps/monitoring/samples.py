"""What of the sampled requests can be compared with the evidence, figure by figure."""

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from steps.config import monitor as names
from steps.config.monitor import BandsConfig
from steps.monitoring.baseline import LEAST_TOKENS, Baseline
from steps.monitoring.drift import Band
from steps.monitoring.live import LiveAnswer

RATIO, SHARE = "ratio", "share"


@dataclass(frozen=True)
class Sample:
    """What is tested of one figure."""

    name: str
    kind: str
    band: Band
    evidence: float | None
    values: Sequence[float]  # ratios, or 0 and 1, in the order of time
    live: Sequence[float] = field(default_factory=tuple)  # where the values are ratios
    left_out: int = 0
    missing: str = ""  # why nothing is tested, whatever the requests
    stretches: bool = True  # whether neighbouring requests count as few witnesses


def of(answers: Sequence[LiveAnswer], baseline: Baseline, bands: BandsConfig) -> list[Sample]:
    """A sample for each figure that has a band.

    Args:
        answers: sampled requests, oldest first.
        baseline: of the version's evidence.
        bands: of the figures; one that is None leaves its figure out.
    """
    return [sample for make in MAKERS for sample in make(answers, baseline, bands)]


Maker = Callable[[Sequence[LiveAnswer], Baseline, BandsConfig], list[Sample]]


def _compared(
    name: str,
    band: Band,
    measured: Sequence[tuple[float, float | None]],
    known: bool,
) -> Sample:
    """A ratio: pairs of what was measured live and what the evidence makes one expect."""
    pairs = [(live, expected) for live, expected in measured if expected]
    return Sample(
        name,
        RATIO,
        band,
        statistics.median(expected for _, expected in pairs) if pairs else None,
        [live / expected for live, expected in pairs],
        [live for live, _ in pairs],
        len(measured) - len(pairs),
        "" if known else "the evidence holds no such timings",
    )


def _first_token(
    answers: Sequence[LiveAnswer], baseline: Baseline, bands: BandsConfig
) -> list[Sample]:
    if (most := bands.time_to_first_token) is None:
        return []
    figures = [one.figures for one in answers if one.figures.outcome == "ok"]
    # the evaluation times one request at a time, and says nothing of how long one waits for others
    measured = [
        (
            one.first_token_s,
            baseline.first_token_after(one.prompt_tokens) if one.concurrency == 1 else None,
        )
        for one in figures
        if one.first_token_s is not None
    ]
    return [_compared(names.FIRST_TOKEN, Band(high=most), measured, bool(baseline.first_token))]


def _inter_token(
    answers: Sequence[LiveAnswer], baseline: Baseline, bands: BandsConfig
) -> list[Sample]:
    if (most := bands.inter_token) is None:
        return []
    figures = [one.figures for one in answers if one.figures.outcome == "ok"]
    measured = [
        (
            one.inter_token_s,
            baseline.inter_token_with(one.concurrency) if one.tokens >= LEAST_TOKENS else None,
        )
        for one in figures
        if one.inter_token_s is not None
    ]
    known = baseline.inter_token_s is not None
    return [_compared(names.INTER_TOKEN, Band(high=most), measured, known)]


def _tokens(answers: Sequence[LiveAnswer], baseline: Baseline, bands: BandsConfig) -> list[Sample]:
    if (most := bands.answer_tokens) is None:
        return []
    figures = [one.figures for one in answers if one.figures.outcome == "ok"]
    measured = [(float(one.tokens), baseline.answer_tokens) for one in figures]
    band = Band(1 / most, most)
    return [_compared(names.TOKENS, band, measured, baseline.answer_tokens is not None)]


def _errors(answers: Sequence[LiveAnswer], baseline: Baseline, bands: BandsConfig) -> list[Sample]:
    if (above := bands.error_rate) is None:
        return []
    # 4xx are the client's, and a client that leaves tells nothing of the version
    outcomes = [
        one.figures.outcome
        for one in answers
        if one.figures.outcome == "ok" or one.figures.outcome.startswith("5")
    ]
    made = _rate(
        names.ERRORS,
        [outcome != "ok" for outcome in outcomes],
        baseline.error_rate,
        Band(high=(baseline.error_rate or 0.0) + above),
        len(answers) - len(outcomes),
    )
    # a stretch of failures is what is looked for, not one witness
    return [replace(made, stretches=False)]


def _refusals(
    answers: Sequence[LiveAnswer], baseline: Baseline, bands: BandsConfig
) -> list[Sample]:
    if (away := bands.refusal_rate) is None:
        return []
    flags = [
        one.figures.refused
        for one in answers
        if one.figures.outcome == "ok" and one.figures.refused is not None
    ]
    expected = baseline.refusal_rate or 0.0
    # a share is never outside 0 and 1: there is no such end of the band
    low, high = expected - away, expected + away
    band = Band(low if low > 0 else -math.inf, high if high < 1 else math.inf)
    return [_rate(names.REFUSALS, flags, baseline.refusal_rate, band, 0)]


def _formats(answers: Sequence[LiveAnswer], baseline: Baseline, bands: BandsConfig) -> list[Sample]:
    if (below := bands.format_validity) is None:
        return []
    flags = [one.figures.format_valid for one in answers if one.figures.format_valid is not None]
    band = Band(low=(baseline.format_validity or 0.0) - below)
    return [_rate(names.FORMATS, flags, baseline.format_validity, band, 0)]


def _rate(
    name: str, flags: Sequence[bool], evidence: float | None, band: Band, left_out: int
) -> Sample:
    missing = "" if evidence is not None else "the evidence holds nothing to compare it with"
    values = [float(flag) for flag in flags]
    return Sample(name, SHARE, band, evidence, values, (), left_out, missing)


MAKERS: tuple[Maker, ...] = (_first_token, _inter_token, _tokens, _errors, _refusals, _formats)
