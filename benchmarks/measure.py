"""Figures side by side: what is compared is measured in turn, as the machine may be busy."""

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class Effort:
    """How much is measured.

    Args:
        pairs: times that a line measures each of what it compares.
        rounds: the same for loads of clients, which take long.
        seconds: that clients go on asking in a round.
        clients: how many of them are tried.
        tokens: new tokens of an answer where a line does not say otherwise.
        warm: whether a first measurement that does not count goes before.
    """

    pairs: int = 9
    rounds: int = 3
    seconds: float = 25.0
    clients: tuple[int, ...] = (1, 4, 8, 16)
    tokens: int = 64
    warm: bool = True


SHORT = Effort(pairs=1, rounds=1, seconds=3.0, clients=(4, 8), tokens=16, warm=False)


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
    """One row of the table.

    Args:
        figure: what is measured.
        against: what it is compared with.
        unit: of ``ours`` and ``theirs``.
        ratio: ours by theirs, median and quartiles of the pairs' own ratios.
        bar: what the ratio must be; None where it is only shown.
        at_most: whether the bar is an upper one.
    """

    figure: str
    against: str
    unit: str
    ours: Spread
    theirs: Spread
    ratio: Spread
    bar: float | None
    at_most: bool

    @property
    def met(self) -> bool | None:
        """Whether the median ratio is on the right side of the bar; None without a bar."""
        if self.bar is None:
            return None
        return self.ratio.median <= self.bar if self.at_most else self.ratio.median >= self.bar


@dataclass(frozen=True)
class LeftOut:
    """A row that could not be measured, and why."""

    figure: str
    against: str
    reason: str


Row = Comparison | LeftOut


def in_turn(
    measures: Mapping[str, Callable[[], T]], times: int, *, warm: bool = True
) -> dict[str, list[T]]:
    """Measure each in turn, `times` times, after once that does not count if `warm`; who begins
    changes from one time to the next.
    """
    names = list(measures)
    if warm:
        for measure in measures.values():
            measure()
    values: dict[str, list[T]] = {name: [] for name in names}
    for number in range(times):
        first = number % len(names)
        for name in names[first:] + names[:first]:
            values[name].append(measures[name]())
    return values


def compare(
    ours: Callable[[], float], theirs: Callable[[], float], effort: Effort
) -> tuple[list[float], list[float]]:
    """Measure two in turn, pair by pair."""
    values = in_turn({"ours": ours, "theirs": theirs}, effort.pairs, warm=effort.warm)
    return values["ours"], values["theirs"]


def comparison(
    figure: str,
    against: str,
    unit: str,
    values: tuple[Sequence[float], Sequence[float]],
    *,
    at_most: float | None = None,
    at_least: float | None = None,
) -> Comparison:
    """Build a row from its pairs and its bar, if it has one."""
    ours, theirs = values
    ratios = [one / other for one, other in zip(ours, theirs, strict=True)]
    bar = at_most if at_most is not None else at_least
    spreads = Spread.of(ours), Spread.of(theirs), Spread.of(ratios)
    return Comparison(figure, against, unit, *spreads, bar, at_most is not None)
