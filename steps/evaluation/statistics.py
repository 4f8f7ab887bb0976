"""Statistics of a verdict: pure functions over per-item scores; every number comes from SciPy with
a fixed seed.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy  # scipy.stats, which takes a second to import, when it is first used

NOT_WORSE, WORSE, UNDECIDED = "not_worse", "worse", "undecided"


@dataclass(frozen=True)
class Interval:
    """An estimate with its confidence interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class SignTest:
    """On how many items one of two scored higher, and how often a fair coin would be as uneven."""

    items: int
    won: int
    lost: int
    p_value: float


@dataclass(frozen=True)
class NonInferiority:
    """A paired comparison with an incumbent: mean difference (candidate minus incumbent), its
    interval and what follows for the margin.
    """

    difference: Interval
    margin: float
    outcome: str  # not_worse, worse or undecided
    items: int
    discordant: float  # share of items on which the two differ
    needed: int  # items with which two equal models would be told not worse in 80 % of cases
    p_value: float  # of a permutation test: how often two equal models would differ by as much


def proportion(scores: Sequence[float], confidence: float = 0.95) -> Interval:
    """Mean of 0/1 scores with its Wilson interval.

    Raises:
        ValueError: no scores.
    """
    if not scores:
        raise ValueError("scores=[]: expected at least one item")
    held = round(sum(scores))
    interval = scipy.stats.binomtest(held, len(scores)).proportion_ci(confidence, method="wilson")
    return Interval(sum(scores) / len(scores), float(interval.low), float(interval.high))


def difference(
    candidate: Sequence[float],
    incumbent: Sequence[float],
    *,
    confidence: float,
    resamples: int,
    seed: int,
) -> Interval:
    """Mean paired difference with a two-sided interval over items.

    The interval is an expanded percentile bootstrap (Hesterberg, The American Statistician 69,
    2015: the quantiles of a t interval, as plain ones are too short on few items). A bootstrap
    cannot draw what the sample does not hold, so the interval is never shorter than what exact
    binomial bounds say of losses and wins that were seldom or never seen: no loss on n items still
    leaves a loss rate of up to 1 - ((1 - confidence) / 2) ** (1 / n).

    Raises:
        ValueError: the two are not of one length, or empty.
    """
    _require_pairs(candidate, incumbent)
    pairs = np.asarray(candidate, float) - np.asarray(incumbent, float)
    count, mean = len(pairs), float(pairs.mean())
    low = high = mean
    if np.ptp(pairs) > 0:  # resampling a constant teaches nothing
        tail = scipy.stats.norm.cdf(
            scipy.stats.t.ppf((1 - confidence) / 2, count - 1) * math.sqrt(count / (count - 1))
        )
        resampled = scipy.stats.bootstrap(
            (pairs,),
            np.mean,
            n_resamples=resamples,
            confidence_level=1 - 2 * float(tail),
            method="percentile",
            rng=np.random.default_rng(seed),
        ).confidence_interval
        low, high = float(resampled.low), float(resampled.high)

    def most(events: int) -> float:
        """Upper end of the exact (Clopper-Pearson) interval of a rate, at the same confidence to
        each side.
        """
        return float(
            scipy.stats.binomtest(events, count).proportion_ci(confidence, method="exact").high
        )

    lost, won = float(-pairs[pairs < 0].sum()) / count, float(pairs[pairs > 0].sum()) / count
    low = min(low, won - most(int((pairs < 0).sum())))
    high = max(high, most(int((pairs > 0).sum())) - lost)
    return Interval(mean, max(-1.0, low), min(1.0, high))


def items_for_floor(score: float, floor: float, confidence: float = 0.95) -> int | None:
    """Items of which the same share held would have its whole Wilson interval above ``floor``; None
    where no number of them would.
    """
    if score <= floor:
        return None
    tail = float(scipy.stats.norm.ppf((1 + confidence) / 2))
    return math.ceil(tail**2 * floor * (1 - floor) / (score - floor) ** 2)


def told_apart(
    candidate: Sequence[float], incumbent: Sequence[float], *, resamples: int, seed: int
) -> float:
    """Two-sided p-value of a paired permutation test on the mean difference: small means that the
    two differ.
    """
    first, second = np.asarray(candidate, float), np.asarray(incumbent, float)
    if len(first) < 2 or np.array_equal(first, second):  # one pair has one arrangement
        return 1.0
    result = scipy.stats.permutation_test(
        (first, second),
        lambda a, b, axis: np.mean(a - b, axis=axis),
        permutation_type="samples",
        vectorized=True,
        n_resamples=resamples,
        rng=np.random.default_rng(seed),
    )
    return float(result.pvalue)


def _require_pairs(first: Sequence[float], second: Sequence[float]) -> None:
    if len(first) != len(second) or not first:
        raise ValueError(
            f"paired scores of {len(first)} and {len(second)} items: expected the same items, at"
            " least one"
        )


def sign_test(ours: Sequence[float], theirs: Sequence[float]) -> SignTest:
    """Exact two-sided sign test on paired scores: only items that the two score differently count.

    Raises:
        ValueError: the two are not of one length, or empty.
    """
    _require_pairs(ours, theirs)
    won = sum(a > b for a, b in zip(ours, theirs, strict=True))
    lost = sum(a < b for a, b in zip(ours, theirs, strict=True))
    p_value = float(scipy.stats.binomtest(won, won + lost).pvalue) if won + lost else 1.0
    return SignTest(len(ours), won, lost, p_value)


def items_needed(discordant: float, margin: float, confidence: float, power: float = 0.8) -> int:
    """Items with which two equal models, differing on a share ``discordant`` of them, are told not
    worse with probability ``power``.

    Normal approximation for paired proportions: n = (z_confidence + z_power)^2 * discordant /
    margin^2.
    """
    quantiles = float(scipy.stats.norm.ppf(confidence) + scipy.stats.norm.ppf(power))
    return math.ceil(quantiles**2 * max(discordant, 0.05) / margin**2)


def least_items(margin: float, confidence: float) -> int:
    """Items below which nothing can be told not worse: even answers without one loss leave a loss
    rate above the margin open.
    """
    return math.ceil(math.log(1 - confidence) / math.log(1 - margin))


def non_inferiority(
    candidate: Sequence[float],
    incumbent: Sequence[float],
    *,
    margin: float,
    confidence: float,
    resamples: int,
    seed: int,
) -> NonInferiority:
    """Whether the candidate's mean score is lower than the incumbent's by no more than ``margin``.

    ``not_worse`` when the lower bound (one-sided ``confidence``) lies above ``-margin`` on at least
    ``least_items``, ``worse`` when the upper one lies below it, else ``undecided``.
    """
    interval = difference(
        candidate, incumbent, confidence=2 * confidence - 1, resamples=resamples, seed=seed
    )
    # a win or two on fewer items is luck, whatever the bound says
    enough = len(candidate) >= least_items(margin, confidence)
    outcome = (
        NOT_WORSE
        if interval.low > -margin and enough
        else WORSE
        if interval.high < -margin
        else UNDECIDED
    )
    discordant = sum(a != b for a, b in zip(candidate, incumbent, strict=True)) / len(candidate)
    needed = max(items_needed(discordant, margin, confidence), least_items(margin, confidence))
    p_value = told_apart(candidate, incumbent, resamples=resamples, seed=seed)
    return NonInferiority(interval, margin, outcome, len(candidate), discordant, needed, p_value)


def percentile(values: Sequence[float], q: float) -> float:
    """Linear percentile ``q`` (0 to 100)."""
    return float(np.percentile(np.asarray(values, float), q))
