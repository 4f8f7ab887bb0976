"""Rank the models that passed: the Pareto front, and on it a weighted geometric mean."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from types import MappingProxyType

from steps.config.promotion import WeightsConfig
from steps.evaluation import metrics
from steps.evaluation.report import CandidateReport

# length of the answer whose time stands for latency; the default of evaluate.max_new_tokens
ANSWER_TOKENS = 64
# how far a time may be off, either way, that was measured on a busy machine; the candidates are
# timed in turn, so that what slows one down slows down the others
DOUBT = 2.0
FLOOR = 1e-6  # stands for 0 where a logarithm is taken
# objective, how it is written, and the factor from the measured value to what is written
SHOWN = (
    ("quality", "{:.1f} %", 100.0),
    ("latency", "{:.2f} s", 1.0),
    ("memory", "{:,.0f} MB", 1e-6),
    ("size", "{:,.0f} MB", 1e-6),
)
NAMES = {
    "quality": "quality",
    "latency": f"an answer of {ANSWER_TOKENS} tokens in",
    "memory": "peak memory",
    "size": "size on disk",
}


@dataclass(frozen=True)
class Ranked:
    """One model's place."""

    candidate: CandidateReport
    objectives: Mapping[str, float]  # larger is worse for all but quality
    on_front: bool
    utility: float  # 0 is the best there is in every objective; each e-fold of weight costs 1


@dataclass(frozen=True)
class Ranking:
    """All models that may win, best first."""

    ranked: tuple[Ranked, ...]
    compared: tuple[str, ...]  # objectives that every model has
    left_out: tuple[str, ...]  # objectives with a weight that some model has no figure for

    @property
    def winner(self) -> Ranked | None:
        return self.ranked[0] if self.ranked else None

    @property
    def runner_up(self) -> Ranked | None:
        return self.ranked[1] if len(self.ranked) > 1 else None


def objectives(measured: Mapping[str, float]) -> dict[str, float]:
    """The four objectives of a profile, as far as the metrics give them.

    Returns:
        ``quality`` in 0..1 (higher is better); ``latency`` in seconds, ``memory`` and ``size`` in
        bytes (lower is better).
    """
    known: dict[str, float] = {}
    if metrics.QUALITY_SCORE in measured:
        known["quality"] = measured[metrics.QUALITY_SCORE]
    if metrics.TTFT_P50 in measured and metrics.ITL_P50 in measured:
        known["latency"] = (
            measured[metrics.TTFT_P50] + (ANSWER_TOKENS - 1) * measured[metrics.ITL_P50]
        )
    if metrics.PEAK_RSS in measured:
        known["memory"] = measured[metrics.PEAK_RSS]
    if metrics.SIZE in measured:
        known["size"] = measured[metrics.SIZE]
    return {name: value for name, value in known.items() if math.isfinite(value)}


def dominates(one: Mapping[str, float], other: Mapping[str, float], names: Sequence[str]) -> bool:
    """Whether ``one`` is no worse than ``other`` in every objective and better in at least one."""
    signs = [(one[name] - other[name]) * (1 if name == "quality" else -1) for name in names]
    return all(sign >= 0 for sign in signs) and any(sign > 0 for sign in signs)


def rank(
    models: Sequence[CandidateReport],
    weights: WeightsConfig,
    times: Mapping[str, float] = MappingProxyType({}),
) -> Ranking:
    """Order the models: those on the Pareto front first, then by weighted geometric mean.

    The mean is taken over each objective's ratio to the best model, so it does not depend on units;
    a model off the front is worse than another in everything that counts, so it cannot win whatever
    the weights. Equal utilities are ordered by variant and id, so that the same report always gives
    the same winner.

    Args:
        models: that may win.
        weights: of the objectives.
        times: factors of the measured latencies, by the model's id; 1 where a model has none.
    """
    wanted = [one.name for one in fields(weights) if getattr(weights, one.name) > 0]
    figures = [objectives(model.metrics) for model in models]
    for model, one in zip(models, figures, strict=True):
        if "latency" in one:
            one["latency"] *= times.get(model.model_id, 1.0)
    compared = [name for name in wanted if all(name in one for one in figures)]
    best = (
        {
            name: (max if name == "quality" else min)(one[name] for one in figures)
            for name in compared
        }
        if models
        else {}
    )

    def utility(one: Mapping[str, float]) -> float:
        total = 0.0
        for name in compared:
            ratio = math.log(max(one[name], FLOOR) / max(best[name], FLOOR))
            total += getattr(weights, name) * (ratio if name == "quality" else -ratio)
        return total

    ranked = [
        Ranked(
            model,
            one,
            not any(dominates(other, one, compared) for other in figures),
            utility(one),
        )
        for model, one in zip(models, figures, strict=True)
    ]
    ranked.sort(
        key=lambda one: (
            not one.on_front,
            -one.utility,
            one.candidate.variant,
            one.candidate.model_id,
        )
    )
    return Ranking(
        tuple(ranked), tuple(compared), tuple(name for name in wanted if name not in compared)
    )


def speed_in_doubt(models: Sequence[CandidateReport], weights: WeightsConfig) -> bool:
    """Whether another model would win if the winner's times were ``DOUBT`` times longer and those
    of the others as much shorter: then figures that were measured on a busy machine cannot choose.
    """
    winner = rank(models, weights).winner
    if winner is None:
        return False
    best = winner.candidate.model_id
    times = {one.model_id: DOUBT if one.model_id == best else 1 / DOUBT for one in models}
    doubted = rank(models, weights, times).winner
    return doubted is None or doubted.candidate.model_id != best


def advantages(winner: Ranked, other: Ranked) -> str:
    """What the winner has over another model, and what it costs, in words."""
    ours, theirs = winner.objectives, other.objectives
    words = []
    for name, form, factor in SHOWN:
        if name in ours and name in theirs:
            pair = [form.format(factor * one[name]) for one in (ours, theirs)]
            if pair[0] == pair[1]:
                words.append(f"the same {NAMES[name]}, {pair[0]}")
            else:
                words.append(f"{NAMES[name]} {pair[0]} instead of {pair[1]}")
    return ", ".join(words) or "no figure that both have"
