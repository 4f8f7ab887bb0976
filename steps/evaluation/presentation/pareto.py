"""Points of candidates or builds over their decode speed, with the Pareto front."""

from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from steps.evaluation.presentation.figures import INK, colour, empty, label_axes, legend_above

MAX_NAMED = 3  # points of a scatter that bear their names; more go into a legend


@dataclass(frozen=True)
class Point:
    """One candidate or build."""

    name: str
    index: int  # of its colour
    speed: float  # decode, tokens per second
    value: float
    size: float  # bytes, which the disc grows with
    interval: tuple[float, float] | None = None  # 95 %, of the value


def front(points: Sequence[Point], best_high: bool = True) -> list[Point]:
    """The points that nothing beats in both speed and value, the slowest first."""

    def beats(one: Point, other: Point) -> bool:
        as_good = one.value >= other.value if best_high else one.value <= other.value
        same = (one.speed, one.value) == (other.speed, other.value)
        return one.speed >= other.speed and as_good and not same

    kept = [point for point in points if not any(beats(other, point) for other in points)]
    return sorted(kept, key=lambda point: point.speed)


def scatter(
    points: Sequence[Point],
    y: str,
    best_high: bool = True,
    limits: tuple[float, float] | None = None,
) -> Figure | None:
    """The points with their intervals, and the Pareto front as a staircase around all that it
    beats.

    Args:
        y: label of the value's axis.
        best_high: whether a high value is good.
        limits: of the value's axis; None takes what the points need.
    """
    if not points:
        return None
    crowded = len(points) > MAX_NAMED
    figure, axes = empty(legend=len(points) if crowded else 0)
    largest = max(point.size for point in points)
    for point in points:
        _draw(axes, point, 60 + 440 * point.size / largest, named=not crowded)
    if crowded:
        keys = [
            Line2D(
                [],
                [],
                marker="o",
                linestyle="",
                color=colour(point.index),
                label=f"{point.name}, {point.size / 1e6:,.0f} MB",
            )
            for point in points
        ]
        legend_above(axes, len(keys), handles=keys)
    fastest = max(point.speed for point in points)
    axes.set_xlim(-0.15 * fastest, 1.2 * fastest)  # room for the names
    axes.set_xticks([tick for tick in axes.get_xticks() if 0 <= tick <= 1.2 * fastest])
    axes.margins(y=0.15 if crowded else 0.3)
    if limits is not None:
        axes.set_ylim(limits)
    _draw_front(axes, front(points, best_high), best_high)
    label_axes(axes, x="decode, tokens per second (one request)", y=y)
    return figure


def _draw(axes: Axes, point: Point, area: float, *, named: bool) -> None:
    place, shade = ([point.speed], [point.value]), colour(point.index)
    axes.scatter(*place, s=area, color=shade, alpha=0.55, linewidths=0, zorder=2)
    axes.scatter(*place, s=12, color=shade, zorder=3)
    if point.interval is not None:
        low, high = point.interval
        spread = [[max(0.0, point.value - low)], [max(0.0, high - point.value)]]
        axes.errorbar(*place, yerr=spread, color=shade, linewidth=1.6, capsize=3, zorder=3)
    if named:
        top = point.interval[1] if point.interval else point.value
        axes.annotate(
            f"{point.name}\n{point.size / 1e6:,.0f} MB",
            (point.speed, top),
            xytext=(0, 5 if point.interval else 15),
            textcoords="offset points",
            ha="center",
            va="bottom",
            fontsize=8.5,
            color=INK,
        )


def _draw_front(axes: Axes, points: Sequence[Point], best_high: bool) -> None:
    """From the slow end of the axes along the front, down (or up) to the bad end of the value."""
    left, (low, high) = axes.get_xlim()[0], axes.get_ylim()
    speeds = [left, *(point.speed for point in points), points[-1].speed]
    values = [points[0].value, *(point.value for point in points), low if best_high else high]
    # up to its speed a point reaches its value
    axes.step(
        speeds, values, where="pre", color=INK, linewidth=1.2, linestyle=(0, (4, 3)), zorder=1
    )
    axes.set_ylim(low, high)
