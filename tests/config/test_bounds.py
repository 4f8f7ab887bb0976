"""Bounds that stand on the fields of the config."""

from dataclasses import dataclass, field

import pytest

from steps.config import bounds
from steps.config.bounds import above, at_least, between, bounded, inside
from steps.core.errors import ConfigError


@dataclass
class Node:
    count: int = bounded(3, at_least(2))
    seconds: float = bounded(1.0, above(0, "seconds"))
    score: float | None = bounded(None, between(0, 1, "a score"))
    margin: float = bounded(0.1, inside(0, 1, "a margin"))
    sizes: list[int] = field(
        default_factory=lambda: [1, 2], metadata={bounds.KEY: at_least(1, "integers")}
    )
    anything: int = -5

    def __post_init__(self) -> None:
        bounds.check(self, "a.node")


@pytest.mark.parametrize(
    "given",
    [{}, {"count": 2}, {"score": 0}, {"score": 1}, {"sizes": []}, {"seconds": float("inf")}],
)
def test_values_within_the_bounds_are_taken(given: dict[str, float]) -> None:
    node = Node(**given)  # type: ignore[arg-type]
    assert all(getattr(node, name) == value for name, value in given.items())


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"count": 1}, r"a\.node\.count=1: expected an integer of at least 2$"),
        ({"seconds": 0}, r"a\.node\.seconds=0: expected seconds above 0$"),
        ({"seconds": float("nan")}, r"a\.node\.seconds=nan: expected seconds above 0$"),
        ({"score": 1.5}, r"a\.node\.score=1\.5: expected a score from 0 to 1, or null$"),
        ({"margin": 0}, r"a\.node\.margin=0: expected a margin between 0 and 1$"),
        ({"sizes": [4, 0]}, r"a\.node\.sizes=\[4, 0\]: expected integers of at least 1$"),
    ],
)
def test_a_value_outside_is_named_with_what_is_expected(
    given: dict[str, float], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        Node(**given)  # type: ignore[arg-type]
