"""Suggestions for mistyped words."""

from steps.core import did_you_mean


def test_a_word_that_is_near_is_suggested_and_another_is_not() -> None:
    known = ("contains_any", "contains_all", "regex")
    assert did_you_mean.hint("contain_any", known, 1) == "did you mean contains_any?"
    assert did_you_mean.hint("contains_an", known, 2) == (
        "did you mean contains_any or contains_all?"
    )
    assert did_you_mean.hint("colour", known) is None
