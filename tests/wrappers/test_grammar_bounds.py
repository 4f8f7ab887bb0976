"""Grammars are bounded before they are compiled: each kind of attack is refused at once."""

import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mlflow.exceptions import MlflowException

from steps.wrappers.served.grammars import checked_grammar
from steps.wrappers.served.schema_bounds import bounded_schema
from tests.wrappers.grammar_shapes import GUIDANCE, INTEGER, lark, named, regex, schema


def nested(depth: int, value: Any = INTEGER) -> Any:
    for _ in range(depth):
        value = {"type": "array", "items": value}
    return value


def doubled(depth: int, key: str) -> dict[str, Any]:
    """Definitions each of which holds the next one twice."""
    both = [[{"$ref": f"#/$defs/d{number + 1}"}] * 2 for number in range(depth)]
    put = {"properties": lambda pair: {"a": pair[0], "b": pair[1]}}.get(key, list)
    definitions = {f"d{number}": {key: put(pair)} for number, pair in enumerate(both)}
    return {"$ref": "#/$defs/d0", "$defs": {**definitions, f"d{depth}": INTEGER}}


ROOT = r"response_format\.json_schema\.schema"

REFUSED: list[tuple[dict[str, Any], str]] = [
    (
        schema({"type": "array", "items": INTEGER, "maxItems": 1_000_000}),
        rf"{ROOT}\.maxItems=1000000: expected at most 4096",
    ),
    (
        schema({"type": "array", "items": INTEGER, "minItems": 10**9}),
        rf"{ROOT}\.minItems=1000000000",
    ),
    (schema({"type": "array", "items": INTEGER, "maxItems": 3e6}), rf"{ROOT}\.maxItems=3000000\.0"),
    (
        schema({"type": "array", "contains": INTEGER, "minContains": 10**6}),
        rf"{ROOT}\.minContains=1000000",
    ),
    (
        schema({"type": "array", "items": {"type": "array", "items": INTEGER, "maxItems": 10**5}}),
        rf"{ROOT}\.items\.maxItems=100000",
    ),
    (
        schema({"type": "object", "properties": named(6, {"type": "array", "maxItems": 4000})}),
        "24000 items of all arrays together",
    ),
    (
        schema({"type": "string", "minLength": 10**9}),
        rf"{ROOT}\.minLength=1000000000: expected at most 1000000",
    ),
    (schema({"type": "string", "maxLength": 10**300}), rf"{ROOT}\.maxLength=1000"),
    (
        schema({"type": "object", "properties": named(8_000)}),
        rf"{ROOT}\.properties='8000 properties': expected at most 1024",
    ),
    (
        schema({"type": "object", "properties": named(1_000)}),
        "1000 optional properties.*name the others in `required`",
    ),
    (schema({"type": "object", "required": list(named(5_000))}), rf"{ROOT}\.required='5000 names'"),
    (schema({"type": "object", "minProperties": 10**6}), rf"{ROOT}\.minProperties"),
    (
        schema({"type": "object", "patternProperties": {f"^{n}.*": INTEGER for n in range(33)}}),
        "pattern 33 of the schema",
    ),
    (
        schema({"type": "object", "patternProperties": {"(a{1000}){1000}": INTEGER}}),
        rf"{ROOT}\.patternProperties=.*1000000 characters",
    ),
    (schema({"enum": list(range(1_000_000))}), r"characters': expected at most 262144"),
    (schema({"enum": list(range(5_000))}), rf"{ROOT}\.enum='5000 values': expected at most 4096"),
    (
        schema({"enum": ["x" * 10_000] * 10}),
        "characters of enum and const': expected at most 65536",
    ),
    (schema({"const": "x" * 100_000}), rf"{ROOT}\.const='100002 characters'"),
    (schema({"anyOf": [INTEGER] * 129}), rf"{ROOT}\.anyOf='129 schemas'"),
    (schema({"oneOf": [INTEGER] * 129}), rf"{ROOT}\.oneOf='129 schemas'"),
    (
        schema({"allOf": [{"pattern": f"a{{{n}}}.*b"} for n in range(60)]}),
        rf"{ROOT}\.allOf='60 schemas': expected at most 16",
    ),
    (
        schema({"allOf": [{"pattern": f"a{{{n}}}.*b"} for n in range(8)]}),
        "8 patterns that one string must match': expected at most 4",
    ),
    (
        schema(
            {"allOf": [{"anyOf": [{"required": [f"{j}{i}"]} for i in range(8)]} for j in range(6)]}
        ),
        "262144 alternatives",
    ),
    (schema({"multipleOf": 1_000_003}), rf"{ROOT}\.multipleOf=1000003"),
    (schema({"multipleOf": 1e-5 + 1e-12}), rf"{ROOT}\.multipleOf"),
    (
        schema({"allOf": [{"multipleOf": 97}, {"multipleOf": 89}, {"multipleOf": 83}]}),
        "716539 as the product of the multipleOf",
    ),
    (schema(doubled(20, "anyOf")), "alternatives when those that must hold together"),
    (schema(doubled(20, "allOf")), "schemas with references written out"),
    (schema(doubled(20, "properties")), "schemas with references written out"),
    (
        schema(
            {
                "$ref": "#/$defs/a0",
                "$defs": {f"a{n}": {"items": {"$ref": f"#/$defs/a{n + 1}"}} for n in range(500)},
            }
        ),
        "49 schemas within",
    ),
    (schema({"prefixItems": [INTEGER] * 5_000}), rf"{ROOT}\.prefixItems='5000 schemas'"),
    (
        schema({"type": "string", "pattern": "(a{1000}){1000}"}),
        rf"{ROOT}\.pattern=.*1000000 characters and classes",
    ),
    (
        schema({"type": "string", "pattern": "a(?=b)"}),
        rf"{ROOT}\.pattern='a\(\?=b\)': expected a pattern without lookarounds",
    ),
    (schema({"if": {"pattern": "(?!x)"}, "then": INTEGER}), rf"{ROOT}\.if\.pattern"),
    (
        schema({"dependentSchemas": {"a": {"maxItems": 10**7}}}),
        rf"{ROOT}\.dependentSchemas\.a\.maxItems",
    ),
    (schema({"not": {"maxItems": 10**7}}), rf"{ROOT}\.not\.maxItems"),
    (schema({"$defs": {"unused": {"maxItems": 10**7}}}), rf"{ROOT}\.\$defs\.unused\.maxItems"),
    (schema(nested(80)), "64 values within values"),
    (schema({"minimum": float("nan")}), "expected a JSON value, which has no such number"),
    (schema({"minimum": 10**5000}), "at most 4096 bits"),
    (
        schema({GUIDANCE: {"whitespace_flexible": True}}),
        rf"{ROOT}\.{GUIDANCE}=.*as it is the server's to set",
    ),
    (schema({"items": {GUIDANCE: {}}}), rf"{ROOT}\.items\.{GUIDANCE}="),
    (regex("a{1000000}"), r"response_format\.regex=.*1000000 characters and classes"),
    (regex("((a{0,30}){0,30}){0,30}"), "expected at most 10000; repeat less"),
    (regex("(?:(?P<x>a{100}){100}){100}"), "1000000 characters"),
    (regex(r"(\p{L}{999}|[^a]{999}){999}"), "characters and classes"),
    (regex("a{" + "9" * 5000 + "}"), "more than 1000000000 characters"),
    (regex("x{5000}{5000}"), "25000000 characters"),
    (regex(r"(a)\1"), "without back-references"),
    (regex("(?<!a)b"), "without lookarounds"),
    (regex("(" * 65 + ")" * 65), "groups at most 64 deep"),
    (regex("a" * 8_193), "8193 characters"),
    (lark('start: "a"{1000000}'), r"response_format\.lark='a repetition of 1000000'"),
    (lark('start: "a"~2..99999'), "a repetition of 99999"),
    (lark('start: "a"{' + "9" * 5000 + "}"), "a repetition of 999"),
    (lark('start: "a"{+1000000}'), "a repetition of 1000000"),
    (lark('start: "a"{2, # many\n}\nb: "a"{3,99999}'), "a repetition of 99999"),
    (lark(" " * 70_000), "70000 characters"),
    # what stands in a Lark grammar is held to the bounds of what it is
    (
        lark('start: %json {"type": "array", "maxItems": 1000000, "items": {"type": "integer"}}'),
        r"response_format\.lark\.%json\.maxItems=1000000: expected at most 4096",
    ),
    (lark('start: "x" a\na: "y"%json\n\n{"minItems": 1e9}'), r"%json\.minItems=1000000000\.0"),
    (lark('start: %lark { start: %json {"maxLength": 10000000} }'), r"%json\.maxLength=10000000"),
    (lark(r'start: /[\/"]/ %json {"maxItems": 99999} "\""'), r"%json\.maxItems=99999"),
    (lark('start: <a"> %json {"maxItems": 99999}'), r"%json\.maxItems=99999"),
    (lark('// "\nstart: %json {"maxItems": 99999}'), r"%json\.maxItems=99999"),
    (lark(f'start: %json {{"{GUIDANCE}": {{}}}}'), rf"%json\.{GUIDANCE}="),
    (
        lark("start: " + " ".join(['%json {"maxItems": 4000}'] * 20)),
        "items of all arrays of all %json blocks': expected at most 16384",
    ),
    (lark("start: " + " ".join(["%json true"] * 129)), "129 %json blocks"),
    (
        lark("start: " + " ".join(['%json {"pattern": "a+"}'] * 33)),
        "33 patterns of all %json blocks",
    ),
    (lark(f'start: %json {{"const": "{"x" * 20_000}"}}'), r"%json\.const='20002 characters'"),
    (lark("start: %json " + "[" * 5_000), "a JSON value behind %json"),
    (lark("start: %json NaN"), "a JSON value"),
    (lark(f"start: %json [{'9' * 5_000}]"), "a JSON value"),
    (lark("start: %json # here\n{}"), "a JSON value behind %json"),
    (lark("start: /(a{1000}){1000}/"), r"response_format\.lark=.*1000000 characters and classes"),
    (lark(r"start: /(a)\1/"), "without back-references"),
    (lark("start: /(?!a)/i"), "without lookarounds"),
    (lark('start: A\nA: B{1000}\nB: "x"{1000}'), "characters and classes of terminals"),
    (lark('start: A\nA: ("x"~1000 | "y"){2, 1000}'), "characters and classes of terminals"),
    (lark('start: A\nA.2: [B]\n  | B{900}\n  | /c/\nB: "x"{900}'), "characters and classes"),
    (lark('start: a\na[lazy]: (B{1000}){1000}\nB: "x"'), "characters and classes of terminals"),
    (lark('start: ~((B{1000}){1000})\nB: "x"'), "characters and classes of terminals"),
    (lark('%ignore (B{1000}){1000}\nstart: "a"\nB: "x"'), "characters and classes of terminals"),
    (lark('start: %lark { start: A\nA: ("x"{1000}){1000} }'), "characters and classes"),
    (
        lark(
            "start: T0\n" + "\n".join(f"T{n}: T{n + 1} T{n + 1}" for n in range(20)) + '\nT20: "x"'
        ),
        "characters and classes of terminals",
    ),
    (
        lark("start: T0\n" + "\n".join(f"T{n}: T{n + 1}" for n in range(3_000)) + '\nT3000: "x"'),
        "65 terminals within terminals",
    ),
    (
        lark('start: A\nA: B{50}\nB: %regex {"substring_chars": "' + "ab" * 20_000 + '"}'),
        "characters and classes of terminals",
    ),
    (lark("start: " + "(" * 65 + '"a"' + ")" * 65), "groups at most 64 deep"),
    (lark('start: "a'), "the engine cannot read this part"),
    (lark('start: "\x01"'), "the engine cannot read this part"),
]


@pytest.mark.parametrize(("given", "message"), REFUSED)
def test_a_grammar_that_is_too_large_is_refused_at_once(
    given: dict[str, Any], message: str
) -> None:
    started = time.process_time()
    with pytest.raises(MlflowException, match=message) as caught:
        checked_grammar(given)
    assert caught.value.get_http_status_code() == 400
    assert time.process_time() - started < 2


def test_references_spelled_in_many_ways_are_measured_once() -> None:
    spelled = [
        f"#/$defs/{'%61' * (n % 2) or 'a'}{'/properties/p0' * (n % 3)}" for n in range(1_000)
    ]
    definitions = {"a": {"properties": named(200, {"properties": {"p0": INTEGER}})}}
    properties = {f"r{n}": {"$ref": reference} for n, reference in enumerate(spelled)}
    started = time.process_time()
    with pytest.raises(MlflowException, match="schemas with references written out"):
        checked_grammar(
            schema({"$defs": definitions, "properties": properties, "required": list(properties)}),
        )
    assert time.process_time() - started < 2


@settings(max_examples=200, deadline=None)
@given(st.text(alphabet="ab(){}[]|*+?\\,0129^$.<:!=P-", max_size=60))
def test_any_pattern_is_counted_or_refused(pattern: str) -> None:
    try:
        checked_grammar(regex(pattern or "a"))
    except MlflowException as error:
        assert error.get_http_status_code() == 400


@settings(max_examples=300, deadline=None)
@given(
    st.lists(
        st.sampled_from(
            [
                *("start: ", "A: ", "\n", " ", '"a"', "/b{9}/", "%json ", "%regex ", "{", "}", "("),
                *(
                    ")",
                    "[",
                    "]",
                    "|",
                    "~",
                    "5",
                    "9" * 12,
                    ",",
                    " .. ",
                    "A",
                    "b",
                    "<",
                    '"',
                    "/",
                    "//",
                ),
                *("\\", "%lark {", "%ignore ", "x[lazy]: ", "::", "&", "*"),
            ]
        ),
        max_size=30,
    )
)
def test_any_lark_grammar_is_counted_or_refused(words: list[str]) -> None:
    try:
        checked_grammar(lark("".join(words) or "a"))
    except MlflowException as error:
        assert error.get_http_status_code() == 400


KEYWORDS = [
    "type",
    "items",
    "anyOf",
    "allOf",
    "$ref",
    "$defs",
    "properties",
    "enum",
    "required",
    "maxItems",
    "multipleOf",
    "pattern",
]
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.sampled_from(["#", "#/$defs/a", "a{9}", "string"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from([*KEYWORDS, "a"]), inner, max_size=3)
    ),
    max_leaves=12,
)


@settings(max_examples=300, deadline=None)
@given(st.dictionaries(st.sampled_from(KEYWORDS), VALUES, max_size=5))
def test_any_schema_is_counted_or_refused(value: dict[str, Any]) -> None:
    try:
        checked_grammar(schema(value))
    except MlflowException as error:
        assert error.get_http_status_code() == 400


@pytest.mark.parametrize(
    "properties",
    [
        {f"p{n}": {"type": "string", "maxLength": 9000 + n} for n in range(990)},
        {f"{'k' * 900}{n}": {"type": "integer"} for n in range(190)},
        {f"p{n}": {"type": "string", "maxLength": 10_000} for n in range(199)},
    ],
    ids=["lengths", "names", "long strings"],
)
def test_plain_schemas_of_many_characters_are_tried(properties: dict[str, Any]) -> None:
    required = list(properties)[: 1000 if len(properties) > 200 else 0]
    plain = {"type": "object", "properties": properties, "required": required}
    assert bounded_schema("schema", plain) is False
