"""Pictures of a report, drawn once and used twice: as PNG artifacts and in the page."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from matplotlib.figure import Figure

from steps.evaluation import metrics
from steps.evaluation.presentation.figures import HEIGHT, colour, empty, label_axes, legend_above
from steps.evaluation.presentation.labels import labels
from steps.evaluation.presentation.pareto import Point, scatter
from steps.evaluation.report import CandidateReport, Report

MAX_POINTS = 400  # points drawn of one distribution


def quality_by_skill(report: Report, names: Sequence[str]) -> Figure | None:
    """Mean score a skill with its 95 % Wilson interval."""
    skills = list(
        dict.fromkeys(
            skill for candidate in report.candidates for skill in candidate.quality.by_skill
        )
    )
    shown = [
        (index, candidate)
        for index, candidate in enumerate(report.candidates)
        if candidate.quality.by_skill
    ]
    if not skills or not shown:
        return None
    step = min(0.22, 0.8 / len(shown))
    figure, axes = empty(1.1 + max(0.42, 0.08 * len(shown)) * len(skills), len(shown))
    for place, (index, candidate) in enumerate(shown):
        rows = [
            (row, candidate.quality.by_skill[skill])
            for row, skill in enumerate(skills)
            if skill in candidate.quality.by_skill
        ]
        shift = (place - (len(shown) - 1) / 2) * step
        scores = [score.score for _, score in rows]
        spread = [
            [max(0.0, score.score - score.low) for _, score in rows],
            [max(0.0, score.high - score.score) for _, score in rows],
        ]
        places = [row + shift for row, _ in rows]
        axes.errorbar(
            scores,
            places,
            xerr=spread,
            fmt="o",
            color=colour(index),
            markersize=5.5,
            linewidth=1.6,
            label=names[index],
        )
    axes.set_yticks(range(len(skills)), [skill.replace("_", " ") for skill in skills])
    axes.set_xlim(-0.02, 1.02)
    axes.invert_yaxis()
    axes.grid(False, axis="y")
    label_axes(axes, x="mean score, with 95 % interval")
    legend_above(axes, len(shown))
    return figure


def _streams(candidate: CandidateReport) -> dict[str, list[dict[str, Any]]]:
    streams: dict[str, list[dict[str, Any]]] = candidate.series.get("speed", {}).get("streams", {})
    return streams


def latency(report: Report, names: Sequence[str]) -> Figure | None:
    """Inter-token latencies as cumulative shares; the time to the first token is in the next
    picture.
    """
    gaps_of = [
        sorted(
            1000 * gap
            for rounds in _streams(candidate).values()
            for stream in rounds
            for gap in stream["itl_s"]
        )
        for candidate in report.candidates
    ]
    if not any(gaps_of):
        return None
    figure, axes = empty(legend=len(report.candidates))
    for index, gaps in enumerate(gaps_of):
        if not gaps:
            continue
        shares = [(place + 1) / len(gaps) for place in range(len(gaps))]
        thin = max(1, len(gaps) // MAX_POINTS)
        axes.step(
            gaps[::thin],
            shares[::thin],
            where="post",
            color=colour(index),
            linewidth=2,
            label=names[index],
        )
    axes.set_xscale("log")
    axes.set_ylim(0, 1.02)
    label_axes(axes, x="milliseconds between two tokens (log)", y="share of faster tokens")
    legend_above(axes, len(report.candidates))
    return figure


def prompt_tokens(candidate: CandidateReport) -> dict[str, int]:
    """Tokens of each timed prompt as the model counted them, by the number that was asked for."""
    counted: dict[str, int] = dict(candidate.series.get("speed", {}).get("prompts", {}))
    asked = sorted(_streams(candidate), key=int)  # older reports name the shortest and the longest
    for name, tokens in zip(
        ("speed/prompt_tokens", "speed/prompt_tokens_long"),
        asked[:1] + asked[1:][-1:],
        strict=False,
    ):
        if name in candidate.metrics:
            counted.setdefault(tokens, round(candidate.metrics[name]))
    return counted


def first_token(report: Report, names: Sequence[str]) -> Figure | None:
    """Time to the first token, each round a dot, the median a bar; short and long prompts."""
    figure, axes = empty(
        max(HEIGHT, 0.8 + 0.24 * sum(len(_streams(candidate)) for candidate in report.candidates))
    )
    ticks: list[tuple[int, str]] = []
    for index, candidate in enumerate(report.candidates):
        for place, (tokens, rounds) in enumerate(
            sorted(_streams(candidate).items(), key=lambda pair: int(pair[0]))
        ):
            counted = prompt_tokens(candidate).get(tokens)
            length = f"{counted} tokens" if counted else f"about {tokens} tokens"
            times = sorted(stream["ttft_s"] for stream in rounds)
            row = place * (len(report.candidates) + 1) + index
            ticks.append((row, f"{names[index]}, {length}"))
            axes.scatter(
                times, [row] * len(times), color=colour(index), s=26, alpha=0.75, linewidths=0
            )
            middle = median(times)
            axes.plot(
                [middle, middle], [row - 0.32, row + 0.32], color=colour(index), linewidth=2.4
            )
    if not ticks:
        return None
    axes.set_yticks([row for row, _ in ticks], [text for _, text in ticks])
    axes.set_xlim(left=0)
    axes.invert_yaxis()
    axes.grid(False, axis="y")
    label_axes(axes, x="seconds to the first token")
    return figure


def pareto(report: Report, names: Sequence[str]) -> Figure | None:
    """Quality over decode speed; the larger the disc, the more memory at the peak."""
    wanted = (metrics.DECODE, metrics.QUALITY_SCORE, metrics.PEAK_RSS)
    points = []
    for index, candidate in enumerate(report.candidates):
        known = candidate.metrics
        if all(name in known for name in wanted):
            speed, score, memory = (known[name] for name in wanted)
            low, high = (known.get(name, score) for name in metrics.INTERVAL)
            points.append(Point(names[index], index, speed, score, memory, (low, high)))
    return scatter(points, "mean score on the pack, with 95 % interval", limits=(0, 1))


def _compared(report: Report) -> list[tuple[int, dict[str, Any]]]:
    return [
        (index, series)
        for index, candidate in enumerate(report.candidates)
        if (series := candidate.series.get("fidelity") or {}).get("quantiles")
    ]


def divergence(report: Report, names: Sequence[str]) -> Figure | None:
    """How far next-token distributions are from the checkpoint's: the share of tokens below each
    KL.
    """
    compared = _compared(report)
    if not compared:
        return None
    figure, axes = empty(legend=len(compared))
    for index, series in compared:
        quantiles = [max(value, 1e-9) for value in series["quantiles"]]
        axes.plot(
            quantiles,
            [step / 100 for step in range(len(quantiles))],
            color=colour(index),
            linewidth=2,
            label=names[index],
        )
        mean = report.candidates[index].metrics[metrics.KL_MEAN]
        axes.axvline(max(mean, 1e-9), color=colour(index), linewidth=1.2, linestyle=(0, (4, 3)))
    axes.set_xscale("log")
    axes.set_ylim(0, 1.02)
    label_axes(axes, x="KL to the checkpoint, nats (dashed: mean)", y="share of tokens below")
    legend_above(axes, len(compared))
    return figure


def divergence_by_text(report: Report, names: Sequence[str]) -> Figure | None:
    """Mean KL a text: languages, code, tables."""
    compared = _compared(report)
    if not compared:
        return None
    texts = list(dict.fromkeys(text for _, series in compared for text in series["by_text"]))
    figure, axes = empty(1.1 + max(0.26, 0.05 * len(compared)) * len(texts))
    for place, (index, series) in enumerate(compared):
        height = 0.8 / len(compared)
        rows = [row for row, text in enumerate(texts) if text in series["by_text"]]
        values = [series["by_text"][texts[row]]["kl_mean"] for row in rows]
        places = [row - 0.4 + height * (place + 0.5) for row in rows]
        axes.barh(places, values, height=height * 0.9, color=colour(index), label=names[index])
    axes.set_yticks(range(len(texts)), [text.replace("_", " ") for text in texts])
    axes.invert_yaxis()
    axes.grid(False, axis="y")
    label_axes(axes, x="mean KL divergence to the checkpoint, nats")
    return figure


@dataclass(frozen=True)
class Picture:
    """One picture of the report."""

    plot: Callable[[Report, Sequence[str]], Figure | None]
    title: str
    text: str  # what it says to those who do not see it


PICTURES: dict[str, Picture] = {  # by file name
    "quality": Picture(
        quality_by_skill,
        "Quality by skill",
        "Mean score of each candidate on each skill with a 95 % interval",
    ),
    "pareto": Picture(
        pareto,
        "Quality, speed and memory",
        "Mean score over decode speed; the bar is the 95 % interval, the disc grows with"
        " peak memory, and nothing beats what stands on the dashed line, the Pareto front",
    ),
    "first_token": Picture(
        first_token,
        "Time to first token",
        "Seconds to the first token of every timed round, short and long prompts",
    ),
    "latency": Picture(
        latency,
        "Inter-token latency",
        "Cumulative share of tokens over the milliseconds between two tokens",
    ),
    "divergence": Picture(
        divergence,
        "Fidelity to the checkpoint",
        "Cumulative share of tokens over their KL divergence",
    ),
    "divergence_by_text": Picture(
        divergence_by_text, "Fidelity by text", "Mean KL divergence on each text"
    ),
}


def draw(report: Report) -> dict[str, Figure]:
    """All pictures that the report has data for."""
    names = labels(report)
    drawn = {name: picture.plot(report, names) for name, picture in PICTURES.items()}
    return {name: figure for name, figure in drawn.items() if figure is not None}
