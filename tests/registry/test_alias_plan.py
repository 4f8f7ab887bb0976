"""What follows for the other aliases when one moves."""

import pytest

from steps.registry import alias_plan


@pytest.mark.parametrize(
    ("current", "wanted"),
    [
        ({}, {"champion": 3}),
        ({"champion": 3}, {"champion": 3}),
        ({"champion": 1}, {"champion": 3, "previous": 1}),
        ({"champion": 1, "challenger": 3}, {"champion": 3, "previous": 1, "challenger": 1}),
        ({"champion": 1, "challenger": 2}, {"champion": 3, "previous": 1}),
        ({"challenger": 3}, {"champion": 3, "challenger": None}),
    ],
)
def test_succession(current: dict[str, int], wanted: dict[str, int | None]) -> None:
    assert alias_plan.succeed(current, "champion", 3) == wanted
