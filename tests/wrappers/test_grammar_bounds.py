"""Grammars are bounded before they are compiled: each kind of attack is refused, what people send is not."""

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mlflow.exceptions import MlflowException

from steps.config.root import ROOT as ROOT_FOLDER
from steps.wrappers.bundle import bundle
from steps.wrappers.served import grammar_trial
from steps.wrappers.served.blank_model import blank_graph
from steps.wrappers.served.grammar_trial import GrammarTrial
from steps.wrappers.served.grammars import Grammar, checked_grammar, fault_of_grammar
from tests.wrappers.conftest import NAME, Context, Folders, say, text

INTEGER = {"type": "integer"}
GUIDANCE = "x-guidance"


def schema(value: Any) -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": {"name": "x", "schema": value}}


def regex(value: str) -> dict[str, Any]:
    return {"type": "regex", "regex": value}


def lark(value: str) -> dict[str, Any]:
    return {"type": "lark", "lark": value}


def named(count: int, of: Any = INTEGER) -> dict[str, Any]:
    return {f"p{number}": of for number in range(count)}


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
    (schema({"type": "array", "items": INTEGER, "maxItems": 1_000_000}), rf"{ROOT}\.maxItems=1000000: expected at most 4096"),
    (schema({"type": "array", "items": INTEGER, "minItems": 10**9}), rf"{ROOT}\.minItems=1000000000"),
    (schema({"type": "array", "items": INTEGER, "maxItems": 3e6}), rf"{ROOT}\.maxItems=3000000\.0"),
    (schema({"type": "array", "contains": INTEGER, "minContains": 10**6}), rf"{ROOT}\.minContains=1000000"),
    (
        schema({"type": "array", "items": {"type": "array", "items": INTEGER, "maxItems": 10**5}}),
        rf"{ROOT}\.items\.maxItems=100000",
    ),
    (schema({"type": "object", "properties": named(6, {"type": "array", "maxItems": 4000})}), "24000 items of all arrays together"),
    (schema({"type": "string", "minLength": 10**9}), rf"{ROOT}\.minLength=1000000000: expected at most 1000000"),
    (schema({"type": "string", "maxLength": 10**300}), rf"{ROOT}\.maxLength=1000"),
    (schema({"type": "object", "properties": named(8_000)}), rf"{ROOT}\.properties='8000 properties': expected at most 1024"),
    (schema({"type": "object", "properties": named(1_000)}), "1000 optional properties.*name the others in `required`"),
    (schema({"type": "object", "required": list(named(5_000))}), rf"{ROOT}\.required='5000 names'"),
    (schema({"type": "object", "minProperties": 10**6}), rf"{ROOT}\.minProperties"),
    (schema({"type": "object", "patternProperties": {f"^{n}.*": INTEGER for n in range(33)}}), "pattern 33 of the schema"),
    (schema({"type": "object", "patternProperties": {"(a{1000}){1000}": INTEGER}}), rf"{ROOT}\.patternProperties=.*1000000 characters"),
    (schema({"enum": list(range(1_000_000))}), r"characters': expected at most 262144"),
    (schema({"enum": list(range(5_000))}), rf"{ROOT}\.enum='5000 values': expected at most 4096"),
    (schema({"enum": ["x" * 10_000] * 10}), "characters of enum and const': expected at most 65536"),
    (schema({"const": "x" * 100_000}), rf"{ROOT}\.const='100002 characters'"),
    (schema({"anyOf": [INTEGER] * 129}), rf"{ROOT}\.anyOf='129 schemas'"),
    (schema({"oneOf": [INTEGER] * 129}), rf"{ROOT}\.oneOf='129 schemas'"),
    (schema({"allOf": [{"pattern": f"a{{{n}}}.*b"} for n in range(60)]}), rf"{ROOT}\.allOf='60 schemas': expected at most 16"),
    (schema({"allOf": [{"pattern": f"a{{{n}}}.*b"} for n in range(8)]}), "8 patterns that one string must match': expected at most 4"),
    (schema({"allOf": [{"anyOf": [{"required": [f"{j}{i}"]} for i in range(8)]} for j in range(6)]}), "262144 alternatives"),
    (schema({"multipleOf": 1_000_003}), rf"{ROOT}\.multipleOf=1000003"),
    (schema({"multipleOf": 1e-5 + 1e-12}), rf"{ROOT}\.multipleOf"),
    (schema({"allOf": [{"multipleOf": 97}, {"multipleOf": 89}, {"multipleOf": 83}]}), "716539 as the product of the multipleOf"),
    (schema(doubled(20, "anyOf")), "alternatives when those that must hold together"),
    (schema(doubled(20, "allOf")), "schemas with references written out"),
    (schema(doubled(20, "properties")), "schemas with references written out"),
    (schema({"$ref": "#/$defs/a0", "$defs": {f"a{n}": {"items": {"$ref": f"#/$defs/a{n + 1}"}} for n in range(500)}}), "49 schemas within"),
    (schema({"prefixItems": [INTEGER] * 5_000}), rf"{ROOT}\.prefixItems='5000 schemas'"),
    (schema({"type": "string", "pattern": "(a{1000}){1000}"}), rf"{ROOT}\.pattern=.*1000000 characters and classes"),
    (schema({"type": "string", "pattern": "a(?=b)"}), rf"{ROOT}\.pattern='a\(\?=b\)': expected a pattern without lookarounds"),
    (schema({"if": {"pattern": "(?!x)"}, "then": INTEGER}), rf"{ROOT}\.if\.pattern"),
    (schema({"dependentSchemas": {"a": {"maxItems": 10**7}}}), rf"{ROOT}\.dependentSchemas\.a\.maxItems"),
    (schema({"not": {"maxItems": 10**7}}), rf"{ROOT}\.not\.maxItems"),
    (schema({"$defs": {"unused": {"maxItems": 10**7}}}), rf"{ROOT}\.\$defs\.unused\.maxItems"),
    (schema(nested(80)), "64 values within values"),
    (schema({"minimum": float("nan")}), "expected a JSON value, which has no such number"),
    (schema({"minimum": 10**5000}), "at most 4096 bits"),
    (schema({GUIDANCE: {"whitespace_flexible": True}}), rf"{ROOT}\.{GUIDANCE}=.*as it is the server's to set"),
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
    (lark(" " * 70_000), "70000 characters"),
]


@pytest.mark.parametrize(("given", "message"), REFUSED)
def test_a_grammar_that_is_too_large_is_refused_at_once(given: dict[str, Any], message: str) -> None:
    started = time.process_time()
    with pytest.raises(MlflowException, match=message) as caught:
        checked_grammar(given, possible=True)
    assert caught.value.get_http_status_code() == 400
    assert time.process_time() - started < 2


def test_references_spelled_in_many_ways_are_measured_once() -> None:
    spelled = [f"#/$defs/{'%61' * (n % 2) or 'a'}{'/properties/p0' * (n % 3)}" for n in range(1_000)]
    definitions = {"a": {"properties": named(200, {"properties": {"p0": INTEGER}})}}
    properties = {f"r{n}": {"$ref": reference} for n, reference in enumerate(spelled)}
    started = time.process_time()
    with pytest.raises(MlflowException, match="schemas with references written out"):
        checked_grammar(schema({"$defs": definitions, "properties": properties, "required": list(properties)}), possible=True)
    assert time.process_time() - started < 2


ADDRESS = {"Address": {"type": "object", "properties": {"street": {"type": "string"}}, "required": ["street"]}}
PERSON = {
    "title": "Person",
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 2_000, "title": "Name"},
        "age": {"anyOf": [{"type": "integer", "minimum": 0, "maximum": 150}, {"type": "null"}], "default": None},
        "address": {"$ref": "#/$defs/Address"},
        "tags": {"type": "array", "items": {"type": "string"}, "maxItems": 100},
        **named(26, {"type": "string"}),
    },
    "required": ["name", "address"],
    "$defs": ADDRESS,
    "additionalProperties": False,
}
TREE = {
    "$ref": "#/$defs/T",
    "$defs": {"T": {"type": "object", "properties": {"next": {"anyOf": [{"$ref": "#/$defs/T"}, {"type": "null"}]}}}},
}

# what people send; whether it is so plain that it need not be tried
TAKEN: list[tuple[dict[str, Any], bool]] = [
    ({"type": "json_object"}, True),
    (schema(PERSON), True),
    (schema({"$defs": {**ADDRESS, "P": PERSON}, "type": "array", "items": {"$ref": "#/$defs/P"}, "minItems": 1, "maxItems": 100}), True),
    (schema({"type": "object", "properties": {"country": {"enum": [f"country {n}" for n in range(200)]}}}), True),
    (schema({"type": "object", "properties": named(100, {"type": "number"}), "required": list(named(100))}), True),
    (schema({"type": "object", "properties": {GUIDANCE: INTEGER}}), True),  # a property may have that name
    (schema({"type": "array", "items": INTEGER, "maxItems": 4_096}), False),
    (schema(TREE), False),
    (schema({"type": "string", "pattern": r"^\d{4}-\d{2}-\d{2}$"}), False),
    (schema({"type": "string", "pattern": "^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$"}), False),
    (schema({"type": "string", "format": "date-time"}), False),
    (schema({"type": "string", "format": "uuid"}), False),
    (schema({"type": "number", "multipleOf": 0.01, "minimum": 0}), False),
    (schema({"type": "string", "maxLength": 100_000}), False),
    (schema({"allOf": [{"$ref": "#/$defs/P"}], "$defs": {**ADDRESS, "P": PERSON}}), False),
    (regex(r"(\+\d{1,3} )?\(?\d{3}\)?[ .-]\d{3}[ .-]\d{4}"), False),
    (regex(r"[\w.+-]{1,64}@[a-z0-9-]{1,63}(\.[a-z]{2,24}){1,4}"), False),
    (regex(r"(?i:yes|no)[\]\[{}]{0,3}"), False),
    (lark('start: "yes" | "no" ("!"){0,3}'), False),
]


@pytest.fixture(scope="module")
def trial(tiny: Folders) -> Iterator[GrammarTrial]:
    made = GrammarTrial(tiny.onnx("fp32"))
    yield made
    made.close()


@pytest.mark.parametrize(("given", "plain"), TAKEN)
def test_what_people_send_is_taken(trial: GrammarTrial, given: dict[str, Any], plain: bool) -> None:
    grammar = checked_grammar(given, possible=True)
    assert grammar is not None
    assert grammar.cheap == plain
    trial.require(grammar)  # also the plain ones, which a server does not try


HIDDEN = [
    ("regex", "(a?){500}a{500}"),  # compiles, and fails at its first token
    ("lark_grammar", 'start: a{1000}\na: b{1000}\nb: "x"'),
    ("lark_grammar", "start: " + " ".join(f'"a{n}"?' for n in range(3_000))),
    ("lark_grammar", 'start: %json {"type": "array", "items": {"type": "integer"}, "maxItems": 3000000}'),
    ("json_schema", json.dumps({"type": "array", "items": INTEGER, "minItems": 10**9, GUIDANCE: {}})),
    ("json_schema", json.dumps({"multipleOf": 1_000_003, GUIDANCE: {}})),
    ("json_schema", json.dumps({"type": 5, GUIDANCE: {"whitespace_flexible": False}})),
    ("json_schema", json.dumps({"enum": [], GUIDANCE: {"whitespace_flexible": False}})),
    ("json_schema", json.dumps({"$ref": "https://example.org/x", GUIDANCE: {"whitespace_flexible": False}})),
]


@pytest.mark.parametrize(("kind", "given"), HIDDEN)
def test_what_no_bound_sees_ends_in_the_trial(trial: GrammarTrial, kind: str, given: str) -> None:
    with pytest.raises(MlflowException, match=r"response_format\.type='.*': expected a grammar that can be compiled") as caught:
        trial.require(Grammar(kind, given))
    assert caught.value.get_http_status_code() == 400
    assert GUIDANCE not in str(caught.value)
    assert len(str(caught.value)) < 600
    trial.require(Grammar("regex", "[0-9]{4}"))  # the next one is tried, by a new process if need be


def test_a_verdict_is_remembered(trial: GrammarTrial) -> None:
    trial.require(Grammar("regex", "[0-9]{5}"))
    trial.close()
    trial.require(Grammar("regex", "[0-9]{5}"))
    assert trial._process is not None
    assert not trial._process.alive


def test_a_process_that_was_killed_is_started_anew(trial: GrammarTrial) -> None:
    trial.require(Grammar("regex", "[0-9]{6}"))
    assert trial._process is not None
    os.kill(trial._process._child.pid, signal.SIGKILL)
    trial._process._child.wait()
    trial.require(Grammar("regex", "[0-9]{7}"))


def test_what_cannot_be_tried_is_not_the_callers_fault(tmp_path: Path, tiny: Folders, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grammar_trial.sys, "executable", str(tmp_path / "nothing"))  # type: ignore[attr-defined]
    with pytest.raises(MlflowException, match="cannot be tried now, as its process cannot be started") as caught:
        GrammarTrial(tiny.onnx("fp32")).require(Grammar("regex", "a"))
    assert caught.value.get_http_status_code() == 503


def test_the_process_knows_no_secret_and_leaves_nothing(tiny: Folders, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_TOKEN", "a-secret")
    made = GrammarTrial(tiny.onnx("fp32"))
    made.require(Grammar("regex", "[0-9]{4}"))
    process = made._process
    assert process is not None
    if sys.platform == "linux":
        assert b"a-secret" not in Path(f"/proc/{process._child.pid}/environ").read_bytes()
    made.close()
    assert not process._folder.exists()
    assert not process.alive


PARENT = """
import sys, time
from pathlib import Path
from steps.wrappers.served.grammar_trial import GrammarTrial
from steps.wrappers.served.grammars import Grammar
trial = GrammarTrial(Path(sys.argv[1]))
trial.require(Grammar("regex", "[0-9]{4}"))
print(trial._process._child.pid, trial._process._folder, flush=True)
time.sleep(60)
"""


def test_the_process_ends_with_a_parent_that_was_killed(tiny: Folders) -> None:
    parent = subprocess.Popen([sys.executable, "-c", PARENT, str(tiny.onnx("fp32"))], cwd=ROOT_FOLDER, stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    child, folder = parent.stdout.readline().split()
    parent.kill()
    parent.wait()
    parent.stdout.close()
    deadline = time.monotonic() + 20
    while psutil.pid_exists(int(child)) and psutil.Process(int(child)).status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert not Path(folder).exists()


def test_the_blank_graph_is_an_onnx_model() -> None:
    import onnx

    model = onnx.load_from_string(blank_graph(70_000))
    onnx.checker.check_model(model)
    assert model.graph.output[0].type.tensor_type.shape.dim[2].dim_value == 70_000


def test_the_logged_file_tries_grammars_by_itself(tiny: Folders, tmp_path: Path) -> None:
    """A server has one file, under a name that nothing can import, and no ``steps``."""
    file = tmp_path / "model.py"
    file.write_text(bundle("onnx"))
    spec = importlib.util.spec_from_file_location("unnamed_model", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    model = module.OnnxChatModel()
    model.load_context(Context({"onnx-model": str(tiny.onnx("fp32"))}, {"name": NAME}))
    file.unlink()
    try:
        [answer] = model.predict(None, say("A year", response_format=regex("[0-9]{4}")))
        assert len(text(answer)) == 4
    finally:
        model.close()


def test_an_engines_words_are_told_from_a_broken_engine() -> None:
    assert fault_of_grammar(RuntimeError("Error committing tokens: Parser Error: Current row has 4007 items"))
    assert not fault_of_grammar(RuntimeError("Non-zero status code returned while running GroupQueryAttention"))


@settings(max_examples=200, deadline=None)
@given(st.text(alphabet="ab(){}[]|*+?\\,0129^$.<:!=P-", max_size=60))
def test_any_pattern_is_counted_or_refused(pattern: str) -> None:
    try:
        checked_grammar(regex(pattern or "a"), possible=True)
    except MlflowException as error:
        assert error.get_http_status_code() == 400


KEYWORDS = ["type", "items", "anyOf", "allOf", "$ref", "$defs", "properties", "enum", "required", "maxItems", "multipleOf", "pattern"]
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from(["#", "#/$defs/a", "a{9}", "string"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from([*KEYWORDS, "a"]), inner, max_size=3),
    max_leaves=12,
)


@settings(max_examples=300, deadline=None)
@given(st.dictionaries(st.sampled_from(KEYWORDS), VALUES, max_size=5))
def test_any_schema_is_counted_or_refused(value: dict[str, Any]) -> None:
    try:
        checked_grammar(schema(value), possible=True)
    except MlflowException as error:
        assert error.get_http_status_code() == 400
