"""Each live figure beside the evidence's, with its band and what the test says."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace

from steps.config import monitor as names
from steps.config.monitor import MonitorConfig
from steps.monitoring import drift, samples
from steps.monitoring.baseline import Baseline
from steps.monitoring.drift import DRIFTED, NOT_MEASURED, TOO_FEW, WITHIN, Resampling
from steps.monitoring.live import LiveAnswer
from steps.monitoring.samples import RATIO, Sample

COUNT = "count"
LABELS = {
    names.FIRST_TOKEN: "time to first token",
    names.INTER_TOKEN: "time between tokens",
    names.TOKENS: "tokens of an answer",
    names.ERRORS: "error rate",
    names.REFUSALS: "refusal rate",
    names.FORMATS: "format validity",
    names.SAME_ANSWERS: "recorded answers",
}


@dataclass(frozen=True)
class Figure:
    """One figure of a period.

    Attributes:
        name: as ``monitor.bands`` has it.
        kind: ``ratio`` (live over the evidence's), ``share`` or ``count``.
        state: ``within``, ``drifted``, ``undecided`` (the interval crosses the band's end),
            ``too_few`` or ``not_measured``.
        live: median in seconds or tokens, a share, or a count; None where there is none.
        evidence: the same of the evaluation.
        tested: what the band is about: a ratio, a share or a count.
        low: of the interval of ``tested``.
        high: of it.
        level: confidence of the interval by itself; None of a count, which has none.
        band_low: lowest value inside the band; None where there is no lower end.
        band_high: highest value inside it.
        requests: that the figure is of.
        left_out: requests that cannot be compared with the evidence's.
        why: it was not measured, in words.
    """

    name: str
    kind: str
    state: str
    live: float | None = None
    evidence: float | None = None
    tested: float | None = None
    low: float | None = None
    high: float | None = None
    level: float | None = None
    band_low: float | None = None
    band_high: float | None = None
    requests: int = 0
    left_out: int = 0
    why: str = ""

    @property
    def label(self) -> str:
        return LABELS[self.name]

    @property
    def words(self) -> str:
        """The figure in one clause, as tags and notifications have it."""
        if self.tested is None:
            return f"{self.label}: {self.why or self.state}"
        if self.kind == COUNT:
            said = f"{self.tested:.0f} of {self.requests} {self.label} are the evidence's"
            return f"{said} (band {self.band_low:.0f}{f'; {self.why}' if self.why else ''})"
        assert self.low is not None and self.high is not None and self.level is not None
        ends = [end for end in (self.band_low, self.band_high) if end is not None]
        if self.kind == RATIO:
            band = " to ".join(f"{end:.3g}" for end in ends)
            said = f"{self.label} {self.tested:.1f} times the evidence's"
            interval = f"{self.low:.1f} to {self.high:.1f}"
        else:
            band = " to ".join(f"{end:.1%}" for end in ends)
            said = f"{self.label} {self.tested:.1%} ({self.evidence or 0:.1%} in the evidence)"
            interval = f"{self.low:.1%} to {self.high:.1%}"
        return f"{said} ({self.level:.1%} interval {interval}, band {band})"


def measure(
    answers: Sequence[LiveAnswer], baseline: Baseline, config: MonitorConfig
) -> list[Figure]:
    """All figures of a period but the recorded answers.

    Their intervals hold together at ``monitor.confidence``, so the more figures there are enough
    requests for, the wider each of them is.

    Args:
        answers: sampled requests, oldest first.
        baseline: of the version's evidence.
        config: bands and limits.
    """
    made = samples.of(answers, baseline, config.bands)
    tested = sum(not one.missing and len(one.values) >= config.min_requests for one in made)
    how = Resampling.shared(config.confidence, tested, config.resamples, config.seed)
    return [_figure(sample, config.min_requests, how) for sample in made]


def _figure(sample: Sample, least: int, how: Resampling) -> Figure:
    count = len(sample.values)
    figure = Figure(
        sample.name,
        sample.kind,
        NOT_MEASURED,
        evidence=sample.evidence,
        requests=count,
        left_out=sample.left_out,
        why=sample.missing,
    )
    if sample.missing:
        return figure
    if count < least:
        why = f"{count} requests, {least} are needed (monitor.min_requests)"
        if sample.left_out:
            why += f"; {sample.left_out} others had a company or a length that was not timed"
        return replace(figure, state=TOO_FEW, why=why)
    if sample.kind == RATIO:
        try:
            interval = drift.median(sample.values, how)
        except ValueError as error:
            return replace(figure, state=TOO_FEW, why=str(error))
        live = statistics.median(sample.live)
    else:
        flags = [bool(value) for value in sample.values]
        interval = drift.share(flags, how, stretches=sample.stretches)
        live = interval.value
    return replace(
        figure,
        state=sample.band.state(interval),
        live=live,
        tested=interval.value,
        low=interval.low,
        high=interval.high,
        level=how.level,
        band_low=_end(sample.band.low),
        band_high=_end(sample.band.high),
    )


def _end(value: float) -> float | None:
    return None if math.isinf(value) else value


def of_recorded(equal: int, asked: int, least: int, evidence: int, why: str) -> Figure:
    """The recorded answers as a figure: a count that needs no interval, as greedy answers are not
    drawn.
    """
    return Figure(
        names.SAME_ANSWERS,
        COUNT,
        DRIFTED if equal < least else WITHIN,
        live=equal,
        evidence=evidence,
        tested=equal,
        band_low=least,
        requests=asked,
        why=why,
    )
