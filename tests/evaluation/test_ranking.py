"""The Pareto front and the profiles, on figures with known answers."""

import math
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from steps.config.promotion import PromotionConfig, WeightsConfig
from steps.core.errors import ConfigError
from steps.evaluation.ranking import advantages, dominates, objectives, rank, speed_in_doubt
from steps.evaluation.report import CandidateReport, Conformance, Quality, Verdict

BALANCED = WeightsConfig(4, 1, 1, 0.5)


def model(
    name: str,
    quality: float,
    first: float = 1.0,
    memory: float = 1e9,
    size: float = 1e8,
    **other: Any,
) -> CandidateReport:
    metrics = {
        "quality/score": quality,
        "speed/ttft_p50_s": first,
        "speed/itl_p50_s": 0.0,
        "memory/peak_rss_bytes": memory,
        "size/bytes": size,
        **other,
    }
    return CandidateReport(
        f"models:/{name}",
        name,
        "onnx",
        "sha256:0",
        "candidate",
        "evaluated",
        None,
        metrics,
        Quality(),
        Conformance(),
        Verdict("promote"),
    )


def order(*models: CandidateReport, weights: WeightsConfig = BALANCED) -> list[str]:
    return [each.candidate.model_id for each in rank(models, weights).ranked]


def test_latency_is_the_time_of_sixty_four_tokens() -> None:
    assert objectives({"speed/ttft_p50_s": 1.0, "speed/itl_p50_s": 0.1})[
        "latency"
    ] == pytest.approx(7.3)


def test_dominated_model_never_wins() -> None:
    ranking = rank([model("worse", 0.4, 2.0, 2e9, 2e8), model("better", 0.5)], BALANCED)
    assert [each.on_front for each in ranking.ranked] == [True, False]
    assert ranking.winner is not None and ranking.winner.candidate.model_id == "better"


def test_utility_by_hand() -> None:
    ranking = rank([model("a", 0.5, 1.0), model("b", 0.4, 0.5)], WeightsConfig(2, 1, 0, 0))
    assert {each.candidate.model_id: each.utility for each in ranking.ranked} == pytest.approx(
        {"a": -math.log(2), "b": 2 * math.log(0.8)}
    )


def test_profiles_trade_quality_for_size() -> None:
    big, small = model("big", 0.60, 1.0, 2e9, 5e8), model("small", 0.55, 0.2, 5e8, 1e8)
    assert order(big, small)[0] == "small"
    assert order(big, small, weights=WeightsConfig(1, 0.01, 0.01, 0.005))[0] == "big"
    assert order(big, small, weights=WeightsConfig(2, 1, 2, 2))[0] == "small"


def test_missing_figure_leaves_the_objective_out_for_all() -> None:
    lacking = replace(model("x", 0.5), metrics={"quality/score": 0.5})
    ranking = rank([lacking, model("y", 0.4)], BALANCED)
    assert ranking.compared == ("quality",) and set(ranking.left_out) == {
        "latency",
        "memory",
        "size",
    }
    assert ranking.winner is not None and ranking.winner.candidate.model_id == "x"


def test_nothing_to_rank() -> None:
    assert rank([], BALANCED).winner is None


figures = st.tuples(
    st.floats(0, 1), st.floats(0.01, 100), st.floats(1e6, 1e10), st.floats(1e6, 1e10)
)


@given(st.lists(figures, min_size=1, max_size=6), st.tuples(*[st.floats(0.01, 5)] * 4))
def test_winner_is_never_dominated_and_order_of_input_does_not_matter(
    rows: list[tuple[float, ...]], weights: tuple[float, ...]
) -> None:
    models = [model(f"m{index}", *row) for index, row in enumerate(rows)]
    ranking = rank(models, WeightsConfig(*weights))
    names = ("quality", "latency", "memory", "size")
    assert ranking.winner is not None
    winner = ranking.winner.objectives
    assert not any(dominates(objectives(each.metrics), winner, names) for each in models)
    assert rank(models[::-1], WeightsConfig(*weights)).ranked == ranking.ranked


def test_bad_weights_and_aliases_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"promotion\.weights\.memory=-1"):
        WeightsConfig(memory=-1)
    with pytest.raises(ConfigError, match="at least one weight above 0"):
        WeightsConfig(0, 0, 0, 0)
    for alias in ("v1", "latest", "Champion", "onnx", "previous"):
        with pytest.raises(ConfigError, match=r"promotion\.alias"):
            PromotionConfig(alias=alias)


def test_speed_is_in_doubt_where_another_would_win_with_other_times() -> None:
    good, quick, fast = (
        model("good", 0.60, 5.0),
        model("quick", 0.55, 2.5),
        model("fast", 0.55, 0.2),
    )
    # half the time wins, and would not if it were the same
    assert order(good, quick)[0] == "quick" and speed_in_doubt([good, quick], BALANCED)
    # a twenty-fifth of the time is less, even if one is measured twice and the other half
    assert order(good, fast)[0] == "fast" and not speed_in_doubt([good, fast], BALANCED)
    # so is a winner whose times are the longer ones
    assert order(good, quick, weights=WeightsConfig(9, 1, 0, 0))[0] == "good"
    assert speed_in_doubt([good, quick], WeightsConfig(9, 1, 0, 0))
    assert not speed_in_doubt([good, quick], WeightsConfig(4, 0, 1, 0.5))
    clock = WeightsConfig(0, 1, 0, 0)
    assert speed_in_doubt([good, quick], clock) and not speed_in_doubt([good, fast], clock)
    assert not speed_in_doubt([good], clock) and not speed_in_doubt([], clock)


def test_advantages_name_every_figure_that_both_have() -> None:
    first, second = rank(
        [model("a", 0.5, 1.0, 2e9, 5e8), model("b", 0.5, 0.25, 1e9, 5e8)], BALANCED
    ).ranked
    assert advantages(first, second) == (
        "the same quality, 50.0 %, an answer of 64 tokens in 0.25 s instead of 1.00 s, peak memory"
        " 1,000 MB instead of 2,000 MB, the same size on disk, 500 MB"
    )
