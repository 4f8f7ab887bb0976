"""Numbers are read from figures and from words."""

import pytest

from steps.evaluation.numbers_in_text import numbers


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("seven apples", [7]),
        ("2 hours, from 9-11", [2, 9, 11]),
        ("\u22125 degrees, then -3", [-5, -3]),
        ("1,200 and 3.5", [1200, 3.5]),
        ("forty-two, Twenty one, sixty", [42, 21, 60]),
        ("one hundred and twelve, a hundred, nine hundred and ninety-nine", [112, 100, 999]),
        ("two in each one, someone, often, height", [2]),
        ("", []),
    ],
)
def test_numbers(text: str, found: list[float]) -> None:
    assert numbers(text) == found
