"""The test of drift on made-up periods whose truth is known."""

import math

import numpy as np
import pytest

from steps.evaluation.statistics import Interval
from steps.monitoring import drift
from steps.monitoring.drift import DRIFTED, UNDECIDED, WITHIN, Band, Resampling

HOW = Resampling(0.95, 300, 0)
PERIODS = 200
# of so many periods in which the promise is just kept, more alarms come with a chance below 0.001
MOST_ALARMS = 0.05 + 3.1 * math.sqrt(0.05 * 0.95 / PERIODS)


def alone(random: np.random.Generator, count: int) -> np.ndarray:
    """Noise of requests that have nothing to do with each other."""
    return random.normal(0, 0.4, count)


def busy_hours(random: np.random.Generator, count: int) -> np.ndarray:
    """Noise of requests of which neighbours are alike."""
    noise = np.empty(count)
    noise[0] = random.normal(0, 0.4)
    for place in range(1, count):
        noise[place] = 0.7 * noise[place - 1] + random.normal(0, 0.4 * math.sqrt(1 - 0.49))
    return noise


def alarms(noise: object, ratio: float, band: float, count: int = 100) -> float:
    """Share of periods that are called a drift where the median is ``ratio`` in truth."""
    assert callable(noise)
    random = np.random.default_rng(5)
    called = [
        Band(high=band).state(drift.median(ratio * np.exp(noise(random, count)), HOW))
        for _ in range(PERIODS)
    ]
    return called.count(DRIFTED) / PERIODS


@pytest.mark.parametrize("noise", [alone, busy_hours])
def test_a_median_at_the_very_edge_is_called_a_drift_as_seldom_as_promised(noise: object) -> None:
    assert alarms(noise, 1.5, 1.5) <= MOST_ALARMS


@pytest.mark.parametrize("noise", [alone, busy_hours])
def test_where_nothing_changed_there_is_no_alarm(noise: object) -> None:
    assert alarms(noise, 1.0, 1.5) == 0


@pytest.mark.parametrize("noise", [alone, busy_hours])
def test_twice_the_time_is_found(noise: object) -> None:
    assert alarms(noise, 2.0, 1.5) > 0.6
    assert alarms(noise, 2.0, 1.5, count=300) > 0.95


def test_five_figures_at_their_edges_give_no_more_false_alarms_together_than_one() -> None:
    random = np.random.default_rng(6)
    how = Resampling.shared(0.95, 5, 200, 0)
    false = 0
    for _ in range(PERIODS):
        states = [
            Band(high=1.5).state(drift.median(1.5 * np.exp(alone(random, 60)), how))
            for _ in range(4)
        ]
        states.append(Band(high=0.1).state(drift.share(list(random.random(60) < 0.1), how)))
        false += DRIFTED in states
    assert false / PERIODS <= MOST_ALARMS


def test_a_rate_that_rose_is_found_and_one_that_did_not_is_not() -> None:
    random = np.random.default_rng(7)
    found = [
        Band(high=0.02).state(drift.share(list(random.random(200) < rate), HOW))
        for rate in [0.15] * 50 + [0.01] * 50
    ]
    assert found[:50].count(DRIFTED) > 45 and DRIFTED not in found[50:]


def test_one_client_that_repeats_itself_is_no_hundred_witnesses() -> None:
    random = np.random.default_rng(8)
    # twelve clients, each asking one thing ten times in a row: one in three is refused
    clients = [[bool(random.random() < 1 / 3)] * 10 for _ in range(12)]
    flags = [flag for client in clients for flag in client]
    exact = drift.share(sorted(flags, key=lambda _: random.random()), HOW)
    in_order = drift.share(flags, HOW)
    assert in_order.high - in_order.low > 1.5 * (exact.high - exact.low)


def test_an_interval_holds_what_exact_ones_do() -> None:
    none = drift.share([False] * 100, HOW)
    assert (none.value, none.low) == (0.0, 0.0) and none.high == pytest.approx(0.0362, abs=1e-4)
    values = drift.median(list(range(100)), HOW)
    assert values.value == 49.5 and values.low <= 39 and values.high >= 60


def test_too_few_values_for_the_level_are_told() -> None:
    with pytest.raises(ValueError, match=r"4 values: too few for an interval of 95.0%"):
        drift.median([1.0] * 4, HOW)


@pytest.mark.parametrize(
    ("low", "high", "state"),
    [
        (1.6, 2.0, DRIFTED),
        (1.4, 1.6, UNDECIDED),
        (1.0, 1.5, WITHIN),
        (0.5, 1.0, WITHIN),
        (0.1, 0.4, DRIFTED),
    ],
)
def test_a_drift_is_an_interval_that_lies_wholly_outside(
    low: float, high: float, state: str
) -> None:
    assert Band(0.5, 1.5).state(Interval((low + high) / 2, low, high)) == state
