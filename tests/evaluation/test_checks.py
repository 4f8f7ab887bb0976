"""Each check on an answer that holds it and one that does not."""

from typing import Any

import pytest

from steps.evaluation import checks

OBJECT = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}

CASES: list[tuple[dict[str, Any], str, str]] = [
    ({"type": "equals", "values": ["yes"]}, " Yes. ", "yes, it can"),
    ({"type": "equals", "values": ["Yes"], "case_sensitive": True}, "Yes", "yes"),
    ({"type": "equals", "values": ["a."], "exact": True}, "a.", "a"),
    (
        {"type": "contains_any", "values": ["Paris", "Lyon"]},
        "It is PARIS, of course.",
        "Comparison",
    ),
    ({"type": "contains_any", "values": ["four"]}, "four", "fourteen"),
    ({"type": "contains_any", "values": ["don't"]}, "I don\u2019t", "I do"),
    (
        {"type": "contains_any", "values": ["example.com/a"], "whole_words": False},
        "https://docs.example.com/ab",
        "example.org",
    ),
    ({"type": "contains_all", "values": ["red", "blue"]}, "Blue\nand red", "only red"),
    ({"type": "contains_none", "values": ["gold"]}, "iron, silver", "iron, Gold"),
    ({"type": "regex", "pattern": "^a\\d+$"}, "A12", "b12"),
    ({"type": "regex", "pattern": "^A$", "case_sensitive": True}, "A", "a"),
    ({"type": "number", "value": 42}, "First 7, then 42.", "42 is not 7"),
    ({"type": "number", "value": 42, "which": "first"}, "42 is not 7", "7 is not 42"),
    ({"type": "number", "value": 42, "which": "any"}, "7, 42, 9", "7 and 9"),
    ({"type": "number", "value": 3.14, "tolerance": 0.01}, "about 3.141", "about 3.2"),
    ({"type": "number", "value": 1200}, "1,200", "1.2"),
    ({"type": "number", "value": -5}, "\u22125 degrees", "5 degrees"),
    (
        {"type": "number", "value": 2, "besides": [9, 11]},
        "2 hours, from 9 to 11",
        "It leaves at 9 and arrives at 11",
    ),
    ({"type": "number", "value": 7}, "Tom has seven apples.", "Tom has eight apples."),
    ({"type": "regex", "pattern": "\\A\\d+\\Z"}, " 40718\n", "Sure!\n40718\nthat is it"),
    ({"type": "json_valid"}, '```json\n{"a": 1}\n```', "{a: 1}"),
    ({"type": "json_schema", "schema": OBJECT}, '{"a": 1}', '{"a": "1"}'),
    ({"type": "word_count", "min": 2, "max": 3}, "two words", "one two three four"),
    ({"type": "word_count", "max": 2}, "it's well-known", "a b c"),
    ({"type": "sentence_count", "min": 2, "max": 2}, "One. Two!", "Only one. And 2.5 more. Three."),
    (
        {"type": "sentence_count", "max": 1},
        'Mr. Novak of St. Ives said "no."',
        'He said "no." She left.',
    ),
    ({"type": "line_count", "min": 2, "max": 2}, "a\n\nb", "a\nb\nc"),
    ({"type": "bullets", "min": 2, "max": 2}, "- a\n2. b\ntext", "* a"),
    ({"type": "bullets", "min": 2, "max": 2, "marker": "dash"}, "Here:\n- a\n- b", "1. a\n2. b"),
    ({"type": "bullets", "min": 2, "max": 2, "marker": "number"}, "1. a\n2) b", "- a\n- b"),
    ({"type": "bullets", "min": 1, "marker": "star"}, "* a", "- a"),
    ({"type": "choice", "options": ["cat", "dog"], "value": "dog"}, "Dog, not cat", "cat, not dog"),
    (
        {"type": "choice", "options": ["cat", "dog"], "value": "dog", "only": True},
        "a dog",
        "dog or cat",
    ),
    (
        {"type": "choice", "options": ["spam", "normal"], "value": "normal", "only": True},
        "normal, not spam",
        "It isn't a normal one.",
    ),
    ({"type": "choice", "options": ["cat", "dog"], "value": "dog"}, "dog", "neither of them"),
    ({"type": "case", "value": "upper"}, "HELLO 1", "HeLLO"),
    ({"type": "case", "value": "lower"}, "hello", "12"),
    ({"type": "starts_with", "values": ["Dear"]}, "dear Anna", "My dear Anna"),
    ({"type": "ends_with", "values": ["thanks"]}, "Many Thanks", "thanks a lot"),
    (
        {"type": "copies", "max": 0.5, "source": "The old mill burned down last night."},
        "A fire took the mill.",
        "The old mill burned down!",
    ),
    ({"type": "refusal"}, "I\u2019m sorry, but I can't help with that.", "First take a pipe and"),
    ({"type": "refusal", "value": False}, "Use a camera.", "I cannot assist with this."),
    (
        {"type": "all_of", "checks": [{"type": "json_valid"}, {"type": "word_count", "max": 1}]},
        "1",
        "1 2",
    ),
    (
        {
            "type": "any_of",
            "checks": [
                {"type": "number", "value": 7},
                {"type": "contains_any", "values": ["seven"]},
            ],
        },
        "Seven",
        "eight",
    ),
    ({"type": "not", "check": {"type": "contains_any", "values": ["x"]}}, "y", "x"),
]


@pytest.mark.parametrize(
    ("check", "good", "bad"),
    CASES,
    ids=[f"{index}-{case[0]['type']}" for index, case in enumerate(CASES)],
)
def test_check(check: dict[str, Any], good: str, bad: str) -> None:
    assert checks.problem(check) is None
    passed, failed = checks.run(check, good), checks.run(check, bad)
    assert passed.passed, passed.detail
    assert not failed.passed, failed.detail
    assert failed.detail


def test_every_check_is_tried() -> None:
    assert {case[0]["type"] for case in CASES} == set(checks.KINDS)


@pytest.mark.parametrize("kind", sorted(checks.KINDS))
def test_no_check_trips_over_an_empty_answer(kind: str) -> None:
    check = next(case[0] for case in CASES if case[0]["type"] == kind)
    assert isinstance(checks.run(check, "").passed, bool)


@pytest.mark.parametrize(
    ("check", "words"),
    [
        ({"type": "contains"}, "unknown check 'contains'"),
        ({"type": "equals"}, "'values' is a required property"),
        ({"type": "equals", "values": ["a"], "value": 1}, "Additional properties"),
        ({"type": "equals", "values": []}, "should be non-empty"),
        ({"type": "regex", "pattern": "("}, "is not a 'regex'"),
        ({"type": "word_count", "min": 5, "max": 2}, "min 5 is above max 2"),
        ({"type": "json_schema", "schema": {"type": "nonsense"}}, "json_schema"),
        ({"type": "choice", "options": ["a"], "value": "b"}, "among its options, not 'b'"),
        (
            {"type": "not", "check": {"type": "any_of", "checks": [{"type": "regex"}]}},
            "'pattern' is a required property",
        ),
        ({"type": "bullets", "marker": "star", "min": 5, "max": 2}, "min 5 is above max 2"),
        ({"type": "bullets", "marker": "circle"}, "'circle' is not one of"),
        ({"type": "copies", "max": 2}, "greater than the maximum of 1"),
        ({"type": "number", "value": 1, "besides": ["2"]}, "is not of type 'number'"),
        (
            {"type": "json_schema", "schema": {"properties": {"a": {"$ref": "#/$defs/x"}}}},
            "a $ref to a part of the schema itself",
        ),
        (
            {"type": "json_schema", "schema": {"$ref": "https://example.org/x.json"}},
            "not 'https://example.org/x.json'",
        ),
        ({"type": "word_count"}, "any answer would hold it"),
        ({"type": "line_count", "min": 0}, "any answer would hold it"),
        ({"type": "bullets", "marker": "star"}, "any answer would hold it"),
        ({"type": "copies", "max": 1}, "any answer would hold it"),
        ("equals", "checks that are objects"),
    ],
)
def test_broken_check_is_named(check: object, words: str) -> None:
    assert words in str(checks.problem(check))


def test_copies_takes_its_source_from_the_item_wherever_it_stands() -> None:
    copies = {"type": "copies", "max": 0.5}
    said = "The old mill burned down last night."
    for check in (
        copies,
        {"type": "all_of", "checks": [copies]},
        {"type": "not", "check": {"type": "not", "check": copies}},
    ):
        assert checks.problem(check) is None
        assert not checks.run(checks.bind(check, said), said).passed
        assert checks.run(checks.bind(check, "Something else was said here."), said).passed
    own = {**copies, "source": "A source of its own."}
    assert checks.bind(own, said) == own
    assert checks.bind({"type": "json_valid"}, said) == {"type": "json_valid"}
