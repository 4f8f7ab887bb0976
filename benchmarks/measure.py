"""Figures side by side: pairs are measured in turn, as the machine may be busy."""

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Spread:
    """Median and quartiles of measurements, in the unit of the line."""

    median: float
    low: float
    high: float
    count: int

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        """Summarise at least one value."""
        if len(values) < 2:
            return cls(values[0], values[0], values[0], len(values))
        low, median, high = statistics.quantiles(values, n=4, method="inclusive")
        return cls(median, low, high, len(values))


@dataclass(frozen=True)
class Comparison:
    """One line of the table.

    Args:
        figure: what is measured.
        against: what it is compared with.
        unit: of ``ours`` and ``theirs``.
        ratio: ours by theirs, median and quartiles of the pairs' own ratios.
        bar: what the ratio must be.
        at_most: whether the bar is an upper one.
    """

    figure: str
    against: str
    unit: str
    ours: Spread
    theirs: Spread
    ratio: Spread
    bar: float
    at_most: bool

    @property
    def met(self) -> bool:
        """Whether the median ratio is on the right side of the bar."""
        return self.ratio.median <= self.bar if self.at_most else self.ratio.median >= self.bar


def compare(
    ours: Callable[[], float], theirs: Callable[[], float], pairs: int
) -> tuple[list[float], list[float]]:
    """Measure both in turn, after one round that does not count; who begins alternates."""
    ours()
    theirs()
    first: list[float] = []
    second: list[float] = []
    for number in range(pairs):
        if number % 2:
            second.append(theirs())
            first.append(ours())
        else:
            first.append(ours())
            second.append(theirs())
    return first, second


def comparison(
    figure: str,
    against: str,
    unit: str,
    values: tuple[Sequence[float], Sequence[float]],
    *,
    at_most: float | None = None,
    at_least: float | None = None,
) -> Comparison:
    """Build a line from its pairs and its one bar."""
    ours, theirs = values
    ratios = [one / other for one, other in zip(ours, theirs, strict=True)]
    bar = at_most if at_most is not None else at_least
    assert bar is not None, f"{figure} has no bar"
    spreads = Spread.of(ours), Spread.of(theirs), Spread.of(ratios)
    return Comparison(figure, against, unit, *spreads, bar, at_most is not None)
