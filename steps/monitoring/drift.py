"""Whether a live figure has left its band: pure functions over what was measured of each request.

Every interval is the wider of two. The exact one (Clopper and Pearson for a share, order statistics
for a median) promises its level for requests that have nothing to do with each other. The circular
block bootstrap (Politis and Romano, 1992) draws whole stretches of neighbouring requests, so that a
busy hour, or one client that asks the same again and again, is not counted as many witnesses; its
quantiles are those of a t interval over the stretches, as plain ones are too short on few
(Hesterberg, The American Statistician 69, 2015).
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import binom, binomtest, norm, t

from steps.evaluation.statistics import Interval

WITHIN, DRIFTED, UNDECIDED = "within", "drifted", "undecided"
TOO_FEW, NOT_MEASURED = "too_few", "not_measured"


@dataclass(frozen=True)
class Band:
    """Where a figure may be, both ends included."""

    low: float = -math.inf
    high: float = math.inf

    def state(self, interval: Interval) -> str:
        """``drifted`` where the whole interval lies outside, ``within`` where it lies inside."""
        if interval.low > self.high or interval.high < self.low:
            return DRIFTED
        inside = self.low <= interval.low and interval.high <= self.high
        return WITHIN if inside else UNDECIDED


@dataclass(frozen=True)
class Resampling:
    """How intervals are made.

    Attributes:
        level: confidence of one interval, two-sided.
        resamples: of the bootstrap.
        seed: of its draws.
    """

    level: float
    resamples: int
    seed: int

    @classmethod
    def shared(cls, confidence: float, figures: int, resamples: int, seed: int) -> "Resampling":
        """For several figures that are to hold together at ``confidence`` (Bonferroni, which asks
        nothing of how the figures hang together).
        """
        return cls(1 - (1 - confidence) / max(1, figures), resamples, seed)


def median(values: Sequence[float], how: Resampling) -> Interval:
    """The median of values in the order of time, with its interval.

    Raises:
        ValueError: too few values for an interval of this level.
    """
    data = np.asarray(values, float)
    # the largest rank below which the median lies with no more than this chance
    rank = int(binom.ppf((1 - how.level) / 2, len(data), 0.5))
    if rank < 1:
        raise ValueError(f"{len(data)} values: too few for an interval of {how.level:.1%}")
    ordered = np.sort(data)
    exact = Interval(
        float(np.median(data)), float(ordered[rank - 1]), float(ordered[len(data) - rank])
    )
    return _wider(exact, data, lambda drawn: np.median(drawn, axis=1), how)


def share(flags: Sequence[bool], how: Resampling, *, stretches: bool = True) -> Interval:
    """The share of requests of which something holds, in the order of time, with its interval.

    Args:
        flags: one a request.
        how: the interval is made.
        stretches: whether neighbours count as few witnesses; without, the interval is the exact one
            of requests that were drawn at random from the period, whatever hung together there.

    Raises:
        ValueError: no requests.
    """
    if not flags:
        raise ValueError("no requests: expected at least one")
    held = int(sum(flags))
    bounds = binomtest(held, len(flags)).proportion_ci(how.level, method="exact")
    exact = Interval(held / len(flags), float(bounds.low), float(bounds.high))
    if not stretches:
        return exact
    return _wider(exact, np.asarray(flags, float), lambda drawn: drawn.mean(axis=1), how)


Statistic = Callable[[np.ndarray], np.ndarray]


def _wider(exact: Interval, data: np.ndarray, statistic: Statistic, how: Resampling) -> Interval:
    count = len(data)
    block = max(1, round(count**0.6))
    blocks = max(2, math.ceil(count / block))
    random = np.random.default_rng(how.seed)
    starts = random.integers(0, count, (how.resamples, blocks, 1))
    places = (starts + np.arange(block)) % count
    drawn = data[places.reshape(how.resamples, -1)[:, :count]]
    stretch = math.sqrt(blocks / (blocks - 1))
    tail = 100 * float(norm.cdf(t.ppf((1 - how.level) / 2, blocks - 1) * stretch))
    low, high = np.percentile(statistic(drawn), [tail, 100 - tail])
    return Interval(exact.value, min(exact.low, float(low)), max(exact.high, float(high)))
