"""Points of candidates or builds over their decode speed, with the Pareto front."""

from collections.abc import Sequence

from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from steps.evaluation.presentation.figures import INK, colour, empty, label_axes, legend_above

MAX_NAMED = 3  # points of a scatter that bear their names; more go into a legend


def scatter(
    points: Sequence[tuple[str, int, float, float, float]], y: str, best_high: bool = True
) -> Figure | None:
    """Points of (name, colour, decode tokens per second, y value, bytes) with the Pareto front
    through those that nothing beats in both.
    """
    if not points:
        return None
    crowded = len(points) > MAX_NAMED
    figure, axes = empty(legend=len(points) if crowded else 0)
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
        legend_above(axes, len(keys), handles=keys)
    axes.margins(y=0.15 if crowded else 0.3)
    fastest = max(speed for _, _, speed, _, _ in points)
    axes.set_xlim(-0.15 * fastest, 1.2 * fastest)  # room for the names
    label_axes(axes, x="decode, tokens per second (one request)", y=y)
    return figure
