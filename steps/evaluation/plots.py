"""Pictures of a report, drawn once and used twice: as PNG artifacts, and as SVG that takes the
page's own colours.

In the SVG each colour is replaced by a CSS value, so that a picture follows light and dark.
"""

import io
import math
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from steps.evaluation.report import CandidateReport, Report

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, GRID = "#1b2330", "#d8dde6"
SERIES = (
    "#2f6fdf",
    "#d9730d",
    "#12966b",
    "#8a4fe0",
    "#d1397f",
    "#5f6b7a",
    "#0d8fa8",
    "#8f8a1e",
)  # on white; the page has a second set for dark
WIDTH, HEIGHT = 5.4, 3.5  # inches: two pictures side by side on a desk, one on a phone
LEGEND_LINE = 0.22  # inches that a line of a legend takes
MAX_NAMED = 3  # points of a scatter that bear their names; more go into a legend
MAX_POINTS = 400  # points drawn of one distribution


def label(candidate: CandidateReport) -> str:
    """How a candidate is called in pictures and columns."""
    name = {"transformers": "transformers", "onnx": "ONNX"}.get(
        candidate.variant, candidate.variant
    )
    return f"{name} (incumbent)" if candidate.role == "incumbent" else name


def labels(report: Report) -> list[str]:
    """One label a candidate; where two would be the same, the end of the model id tells them
    apart.
    """
    plain = [label(candidate) for candidate in report.candidates]
    return [
        (
            f"{name} {candidate.model_id[-6:]}"
            if plain.count(name) > 1 and candidate.model_id
            else name
        )
        for name, candidate in zip(plain, report.candidates, strict=True)
    ]


def colour(index: int) -> str:
    return SERIES[index % len(SERIES)]


def _columns(entries: int) -> int:
    """Columns of a legend of so many entries: what the width holds."""
    return min(entries, 3) if entries <= 3 else 2


def _figure(height: float = HEIGHT, legend: int = 0) -> "tuple[Figure, Axes]":
    """An empty figure that grows with the number of entries in the legend above it."""
    from matplotlib.figure import Figure

    lines = math.ceil(legend / _columns(legend)) - 1 if legend else 0
    figure = Figure(figsize=(WIDTH, height + LEGEND_LINE * lines), layout="constrained")
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(GRID)
    axes.tick_params(colors=INK, labelsize=9, length=0)
    axes.grid(True, color=GRID, linewidth=0.7)
    axes.set_axisbelow(True)
    return figure, axes


def _say(axes: "Axes", *, x: str, y: str = "") -> None:
    axes.set_xlabel(x, color=INK, fontsize=9.5)
    axes.set_ylabel(y, color=INK, fontsize=9.5)


def _legend(axes: "Axes", entries: int, **more: Any) -> None:
    """A legend above the axes."""
    place = {"loc": "lower center", "bbox_to_anchor": (0.5, 1.0), "ncols": _columns(entries)}
    axes.legend(frameon=False, fontsize=9, labelcolor=INK, **place, **more)


def quality_by_skill(report: Report, names: Sequence[str]) -> "Figure | None":
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
    figure, axes = _figure(1.1 + max(0.42, 0.08 * len(shown)) * len(skills), len(shown))
    for place, (index, candidate) in enumerate(shown):
        rows = [
            (row, candidate.quality.by_skill[skill])
            for row, skill in enumerate(skills)
            if skill in candidate.quality.by_skill
        ]
        shift = (place - (len(shown) - 1) / 2) * step
        scores = [score.score for _, score in rows]
        spread = [
            [score.score - score.low for _, score in rows],
            [score.high - score.score for _, score in rows],
        ]
        spread = [[max(0.0, each) for each in side] for side in spread]
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
    _say(axes, x="mean score, with 95 % interval")
    _legend(axes, len(shown))
    return figure


def _streams(candidate: CandidateReport) -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = candidate.series.get("speed", {}).get("streams", {})
    return found


def latency(report: Report, names: Sequence[str]) -> "Figure | None":
    """Inter-token latencies as cumulative shares; the time to the first token is in the next
    picture.
    """
    if not any(
        each["itl_s"]
        for candidate in report.candidates
        for rounds in _streams(candidate).values()
        for each in rounds
    ):
        return None
    figure, axes = _figure(legend=len(report.candidates))
    for index, candidate in enumerate(report.candidates):
        gaps = sorted(
            1000 * gap
            for rounds in _streams(candidate).values()
            for each in rounds
            for gap in each["itl_s"]
        )
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
    _say(axes, x="milliseconds between two tokens (log)", y="share of tokens that come faster")
    _legend(axes, len(report.candidates))
    return figure


def first_token(report: Report, names: Sequence[str]) -> "Figure | None":
    """Time to the first token, each round a dot, the median a bar; short and long prompts."""
    figure, axes = _figure(
        max(HEIGHT, 0.8 + 0.24 * sum(len(_streams(candidate)) for candidate in report.candidates))
    )
    ticks: list[tuple[int, str]] = []
    for index, candidate in enumerate(report.candidates):
        for place, (tokens, rounds) in enumerate(
            sorted(_streams(candidate).items(), key=lambda pair: int(pair[0]))
        ):
            times = sorted(each["ttft_s"] for each in rounds)
            row = place * (len(report.candidates) + 1) + index
            ticks.append((row, f"{names[index]}, {tokens} tokens"))
            axes.scatter(
                times, [row] * len(times), color=colour(index), s=26, alpha=0.75, linewidths=0
            )
            middle = times[len(times) // 2]
            axes.plot(
                [middle, middle], [row - 0.32, row + 0.32], color=colour(index), linewidth=2.4
            )
    if not ticks:
        return None
    axes.set_yticks([row for row, _ in ticks], [text for _, text in ticks])
    axes.set_xlim(left=0)
    axes.invert_yaxis()
    axes.grid(False, axis="y")
    _say(axes, x="seconds to the first token")
    return figure


def pareto(report: Report, names: Sequence[str]) -> "Figure | None":
    """Quality over decode speed; the larger the disc, the more memory at the peak."""
    wanted = ("speed/decode_tokens_per_second", "quality/score", "memory/peak_rss_bytes")
    points = []
    for index, candidate in enumerate(report.candidates):
        if all(name in candidate.metrics for name in wanted):
            speed, score, memory = (candidate.metrics[name] for name in wanted)
            points.append((names[index], index, speed, score, memory))
    return scatter(points, "mean score on the pack")


def scatter(
    points: Sequence[tuple[str, int, float, float, float]], y: str, best_high: bool = True
) -> "Figure | None":
    """Points of (name, colour, decode tokens per second, y value, bytes) with the Pareto front
    through those that nothing beats in both.
    """
    if not points:
        return None
    crowded = len(points) > MAX_NAMED
    figure, axes = _figure(legend=len(points) if crowded else 0)
    front = sorted(
        (speed, value)
        for _, _, speed, value, _ in points
        if not any(
            (other_speed >= speed and (other >= value if best_high else other <= value))
            and (other_speed, other) != (speed, value)
            for _, _, other_speed, other, _ in points
        )
    )
    axes.plot(
        [speed for speed, _ in front],
        [value for _, value in front],
        color=INK,
        linewidth=1.2,
        linestyle=(0, (4, 3)),
        zorder=1,
    )
    largest = max(size for *_, size in points)
    for name, index, speed, value, size in points:
        axes.scatter(
            [speed],
            [value],
            s=60 + 440 * size / largest,
            color=colour(index),
            alpha=0.55,
            linewidths=0,
            zorder=2,
        )
        axes.scatter([speed], [value], s=12, color=colour(index), zorder=3)
        if not crowded:
            text = f"{name}\n{size / 1e6:,.0f} MB"
            axes.annotate(
                text,
                (speed, value),
                xytext=(0, 15),
                textcoords="offset points",
                ha="center",
                fontsize=8.5,
                color=INK,
            )
    if crowded:
        from matplotlib.lines import Line2D

        keys = [
            Line2D(
                [],
                [],
                marker="o",
                linestyle="",
                color=colour(index),
                label=f"{name}, {size / 1e6:,.0f} MB",
            )
            for name, index, _, _, size in points
        ]
        _legend(axes, len(keys), handles=keys)
    axes.margins(y=0.15 if crowded else 0.3)
    fastest = max(speed for _, _, speed, _, _ in points)
    axes.set_xlim(-0.15 * fastest, 1.2 * fastest)  # room for the names
    _say(axes, x="decode, tokens per second (one request)", y=y)
    return figure


def _compared(report: Report) -> list[tuple[int, dict[str, Any]]]:
    found = [
        (index, candidate.series.get("fidelity") or {})
        for index, candidate in enumerate(report.candidates)
    ]
    return [(index, series) for index, series in found if series.get("quantiles")]


def divergence(report: Report, names: Sequence[str]) -> "Figure | None":
    """How far next-token distributions are from the checkpoint's: the share of tokens below each
    KL.
    """
    compared = _compared(report)
    if not compared:
        return None
    figure, axes = _figure(legend=len(compared))
    for index, series in compared:
        quantiles = [max(value, 1e-9) for value in series["quantiles"]]
        axes.plot(
            quantiles,
            [step / 100 for step in range(len(quantiles))],
            color=colour(index),
            linewidth=2,
            label=names[index],
        )
        mean = report.candidates[index].metrics["fidelity/kl_mean"]
        axes.axvline(max(mean, 1e-9), color=colour(index), linewidth=1.2, linestyle=(0, (4, 3)))
    axes.set_xscale("log")
    axes.set_ylim(0, 1.02)
    _say(axes, x="KL divergence to the checkpoint, nats (dashed: mean)", y="share of tokens below")
    _legend(axes, len(compared))
    return figure


def divergence_by_text(report: Report, names: Sequence[str]) -> "Figure | None":
    """Mean KL a text: languages, code, tables."""
    compared = _compared(report)
    if not compared:
        return None
    texts = list(dict.fromkeys(text for _, series in compared for text in series["by_text"]))
    figure, axes = _figure(1.1 + max(0.26, 0.05 * len(compared)) * len(texts))
    for place, (index, series) in enumerate(compared):
        height = 0.8 / len(compared)
        rows = [row for row, text in enumerate(texts) if text in series["by_text"]]
        values = [series["by_text"][texts[row]]["kl_mean"] for row in rows]
        places = [row - 0.4 + height * (place + 0.5) for row in rows]
        axes.barh(places, values, height=height * 0.9, color=colour(index), label=names[index])
    axes.set_yticks(range(len(texts)), [text.replace("_", " ") for text in texts])
    axes.invert_yaxis()
    axes.grid(False, axis="y")
    _say(axes, x="mean KL divergence to the checkpoint, nats")
    return figure


Draw = Callable[[Report, Sequence[str]], "Figure | None"]
# file name: (drawing, title, what it says to those who do not see it)
PICTURES: dict[str, tuple[Draw, str, str]] = {
    "quality": (
        quality_by_skill,
        "Quality by skill",
        "Mean score of each candidate on each skill with a 95 % interval",
    ),
    "pareto": (
        pareto,
        "Quality, speed and memory",
        (
            "Mean score over decode speed; the disc grows with peak memory, the dashed line is the"
            " Pareto front"
        ),
    ),
    "first_token": (
        first_token,
        "Time to first token",
        "Seconds to the first token of every timed round, short and long prompts",
    ),
    "latency": (
        latency,
        "Inter-token latency",
        "Cumulative share of tokens over the milliseconds between two tokens",
    ),
    "divergence": (
        divergence,
        "Fidelity to the checkpoint",
        "Cumulative share of tokens over their KL divergence",
    ),
    "divergence_by_text": (
        divergence_by_text,
        "Fidelity by text",
        "Mean KL divergence on each text",
    ),
}


def draw(report: Report) -> "dict[str, Figure]":
    """All pictures that the report has data for."""
    names = labels(report)
    figures = {name: picture(report, names) for name, (picture, _, _) in PICTURES.items()}
    return {name: figure for name, figure in figures.items() if figure is not None}


def svg(figure: "Figure", name: str, description: str) -> str:
    """The figure as inline SVG: scalable, text as text, colours as CSS."""
    import matplotlib

    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": name}):
        figure.savefig(
            buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None}
        )
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r'\bid="([^"]+)"', rf'id="{name}-\1"', text)
    text = re.sub(r"url\(#([^)]+)\)", rf"url(#{name}-\1)", text)
    text = re.sub(r'xlink:href="#([^"]+)"', rf'xlink:href="#{name}-\1"', text)
    text = re.sub(r'<svg ([^>]*?)width="[^"]*" height="[^"]*"', r"<svg \1", text, count=1)
    text = re.sub(r'<svg height="[^"]*" ', "<svg ", text, count=1)
    text = text.replace("<svg ", f'<svg role="img" aria-label="{description}" ', 1)
    text = text.replace(INK, "var(--ink)").replace(GRID, "var(--line)")
    for index, each in enumerate(SERIES):
        text = text.replace(each, f"var(--c{index})")
    return re.sub(r"font: ([\d.]+)px [^;\"]+", r"font: \1px var(--font)", text)


def png(figure: "Figure", path: Path) -> None:
    """The figure as a PNG on white."""
    figure.savefig(path, format="png", dpi=160, facecolor="white")
