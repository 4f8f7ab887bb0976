"""Statistics on cases with known answers."""

from collections import Counter
from functools import cache

import numpy as np
import pytest

from steps.evaluation import statistics

ITEMS, SIMULATIONS = 150, 1000


def paired(
    chance: np.random.Generator, worse: float, better: float, items: int = ITEMS
) -> tuple[list[float], list[float]]:
    """0/1 scores of a candidate and an incumbent: it loses on a share ``worse`` of the items and
    wins on ``better``.
    """
    draw = chance.random(items)
    incumbent = (chance.random(items) < 0.5).astype(float)
    incumbent[draw < worse] = 1.0
    candidate = incumbent.copy()
    candidate[draw < worse] = 0.0
    wins = (draw >= worse) & (draw < worse + better)
    incumbent[wins], candidate[wins] = 0.0, 1.0
    return candidate.tolist(), incumbent.tolist()


@cache
def compared(losses: int, wins: int, items: int) -> statistics.NonInferiority:
    """What the function that decides says of so many losses and wins: the order of the items says
    nothing.
    """
    candidate = [0.0] * losses + [1.0] * (items - losses)
    incumbent = [1.0] * losses + [0.0] * wins + [1.0] * (items - losses - wins)
    return statistics.non_inferiority(
        candidate, incumbent, margin=0.1, confidence=0.95, resamples=999, seed=0
    )


def outcome(losses: int, wins: int, items: int) -> str:
    """What follows from so many losses and wins."""
    return compared(losses, wins, items).outcome


def simulated(
    worse: float, better: float, rounds: int, seed: int, items: int = ITEMS
) -> list[statistics.NonInferiority]:
    """Candidates that lose on a share ``worse`` of the items and win on ``better``, each compared
    with its incumbent.
    """
    drawn = np.random.default_rng(seed).multinomial(
        items, [worse, better, 1 - worse - better], size=rounds
    )
    return [compared(int(losses), int(wins), items) for losses, wins, _ in drawn]


def p_values(worse: float, better: float, rounds: int, seed: int) -> list[float]:
    return [result.p_value for result in simulated(worse, better, rounds, seed)]


def test_so_many_items_put_a_score_above_a_floor() -> None:
    needed = statistics.items_for_floor(0.25, 0.15)
    assert needed is not None
    enough = statistics.proportion([1.0] * round(needed / 4) + [0.0] * (needed - round(needed / 4)))
    assert enough.low == pytest.approx(0.15, abs=0.005)
    assert statistics.items_for_floor(0.15, 0.15) is None


def test_equal_models_are_seldom_told_apart() -> None:
    assert sum(value < 0.05 for value in p_values(0.1, 0.1, SIMULATIONS, 0)) <= 0.05 * SIMULATIONS


def test_a_real_difference_is_found() -> None:
    """Ten points on 150 items, with a fifth of the items answered differently."""
    assert sum(value < 0.05 for value in p_values(0.16, 0.04, 300, 1)) >= 0.8 * 300


def outcomes(worse: float, better: float, rounds: int, items: int = ITEMS) -> Counter[str]:
    return Counter(result.outcome for result in simulated(worse, better, rounds, 2, items))


def test_equal_models_are_not_held_and_mostly_pass() -> None:
    counts = outcomes(0.1, 0.1, rounds=SIMULATIONS)
    assert counts[statistics.WORSE] <= 0.05 * SIMULATIONS
    assert counts[statistics.NOT_WORSE] >= 0.8 * SIMULATIONS


@pytest.mark.parametrize("items", [8, 16, 32, 128])
@pytest.mark.parametrize("better", [0.0, 0.05, 0.2])
def test_a_model_at_the_margin_seldom_passes(items: int, better: float) -> None:
    """The error that matters, summed over every sample that may be drawn: a model worse by the
    whole margin passes in about 5 %.
    """
    from scipy.stats import multinomial

    passed = 0.0
    for losses in range(items + 1):
        for wins in range(items + 1 - losses):
            mass = float(
                multinomial.pmf(
                    [losses, wins, items - losses - wins],
                    items,
                    [better + 0.1, better, 0.9 - 2 * better],
                )
            )
            if (
                mass > 1e-5
                and wins - losses > -0.1 * items
                and outcome(losses, wins, items) == statistics.NOT_WORSE
            ):
                passed += mass
    # percentiles jump from one count of losses to the next
    assert passed <= (0.0 if items < 29 else 0.066)


def test_one_item_decides_nothing() -> None:
    assert (
        outcome(0, 1, 8)
        == outcome(0, 2, 8)
        == outcome(0, 0, 8)
        == outcome(0, 0, 28)
        == statistics.UNDECIDED
    )
    # 1 - 0.05 ** (1 / 29) of losses may be unseen: less than a tenth
    assert outcome(0, 0, 29) == statistics.NOT_WORSE
    assert outcome(8, 0, 8) == statistics.WORSE
    assert statistics.least_items(0.1, 0.95) == 29


def test_a_clear_loss_is_held() -> None:
    counts = outcomes(0.4, 0.05, rounds=200)
    assert counts[statistics.WORSE] >= 0.8 * 200 and counts[statistics.NOT_WORSE] == 0


def test_items_needed_gives_the_power_it_says() -> None:
    needed = statistics.items_needed(0.2, margin=0.1, confidence=0.95)
    assert needed == 124  # (1.645 + 0.842)^2 * 0.2 / 0.01, rounded up
    counts = outcomes(0.1, 0.1, rounds=300, items=needed)
    assert counts[statistics.NOT_WORSE] >= 0.75 * 300


def test_proportion_matches_the_textbook() -> None:
    interval = statistics.proportion([1.0] * 8 + [0.0] * 2)
    # Wilson, 8 of 10
    assert (interval.value, interval.low, interval.high) == pytest.approx(
        (0.8, 0.4902, 0.9433), abs=1e-4
    )
    with pytest.raises(ValueError, match="at least one item"):
        statistics.proportion([])


def test_same_scores_leave_doubt_that_shrinks_with_items() -> None:
    few = statistics.difference([1.0] * 8, [1.0] * 8, confidence=0.9, resamples=999, seed=0)
    many = statistics.difference([1.0] * 200, [1.0] * 200, confidence=0.9, resamples=999, seed=0)
    assert few.value == many.value == 0.0
    assert few.low < -0.2 < many.low
    assert statistics.told_apart([1.0, 0.0], [1.0, 0.0], resamples=99, seed=0) == 1.0


def test_same_seed_same_interval() -> None:
    scores = paired(np.random.default_rng(3), 0.2, 0.1)
    first, second = (
        statistics.difference(*scores, confidence=0.9, resamples=999, seed=5) for _ in range(2)
    )
    assert first == second
    with pytest.raises(ValueError, match="the same items"):
        statistics.difference([1.0], [1.0, 0.0], confidence=0.9, resamples=999, seed=0)
