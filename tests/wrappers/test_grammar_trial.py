"""Grammars are tried in a process of their own, which refuses what is too large for it."""

import importlib.util
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from mlflow.exceptions import MlflowException

from steps.config.root import ROOT
from steps.wrappers.bundle import bundle
from steps.wrappers.served import grammar_process, grammar_trial
from steps.wrappers.served.grammar_process import FORKS
from steps.wrappers.served.grammar_trial import GrammarTrial
from steps.wrappers.served.grammars import Grammar, checked_grammar, fault_of_grammar
from tests.wrappers.grammar_shapes import (
    ADDRESS,
    GUIDANCE,
    HIDDEN,
    INTEGER,
    PERSON,
    SLOW,
    TREE,
    lark,
    named,
    regex,
    schema,
)
from tests.wrappers.subjects import NAME, Context, Folders, say, text

# what people send; whether it is so plain that it need not be tried
TAKEN: list[tuple[dict[str, Any], bool]] = [
    ({"type": "json_object"}, True),
    (schema(PERSON), True),
    (
        schema(
            {
                "$defs": {**ADDRESS, "P": PERSON},
                "type": "array",
                "items": {"$ref": "#/$defs/P"},
                "minItems": 1,
                "maxItems": 100,
            }
        ),
        True,
    ),
    (
        schema(
            {
                "type": "object",
                "properties": {"country": {"enum": [f"country {n}" for n in range(200)]}},
            }
        ),
        True,
    ),
    (
        schema(
            {
                "type": "object",
                "properties": named(100, {"type": "number"}),
                "required": list(named(100)),
            }
        ),
        True,
    ),
    # the largest that are not tried
    (schema({"type": "object", "properties": named(990), "required": list(named(990))}), True),
    (schema({"type": "object", "properties": named(200)}), True),
    (
        schema(
            {
                "type": "array",
                "items": {"type": "string", "maxLength": 10_000},
                "minItems": 1,
                "maxItems": 2_048,
            }
        ),
        True,
    ),
    (
        schema({"anyOf": [{"type": "object", "properties": {key: INTEGER}} for key in named(128)]}),
        True,
    ),
    (schema({"enum": [key * 8 for key in named(380)]}), True),
    # a property may have that name
    (schema({"type": "object", "properties": {GUIDANCE: INTEGER}}), True),
    (schema({"type": "array", "items": INTEGER, "maxItems": 4_096}), False),
    (
        schema(
            {
                "type": "object",
                "properties": named(5),
                "anyOf": [{"required": ["p0"]}, {"required": ["p1"]}],
            }
        ),
        False,
    ),
    (schema({"type": "object", "properties": named(1), "required": ["p0", "p1"]}), False),
    (schema(TREE), False),
    (schema({"type": "string", "pattern": r"^\d{4}-\d{2}-\d{2}$"}), False),
    (
        schema(
            {
                "type": "string",
                "pattern": "^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$",
            }
        ),
        False,
    ),
    (schema({"type": "string", "format": "date-time"}), False),
    (schema({"type": "string", "format": "uuid"}), False),
    (schema({"type": "number", "multipleOf": 0.01, "minimum": 0}), False),
    (schema({"type": "string", "maxLength": 100_000}), False),
    (schema({"allOf": [{"$ref": "#/$defs/P"}], "$defs": {**ADDRESS, "P": PERSON}}), False),
    (regex(r"(\+\d{1,3} )?\(?\d{3}\)?[ .-]\d{3}[ .-]\d{4}"), False),
    (regex(r"[\w.+-]{1,64}@[a-z0-9-]{1,63}(\.[a-z]{2,24}){1,4}"), False),
    (regex(r"(?i:yes|no)[\]\[{}]{0,3}"), False),
    (lark('start: "yes" | "no" ("!"){0,3}'), False),
    (lark('start: "a"~2 .. 5 "b"{,5} "c"{2, } "d"{+3}  // %json {\n  | "e"i # "'), False),
    (lark('start: call\ncall: "f(" %json {"type": "integer"} ")"%json{"const": "/"}'), False),
    (lark('start: %lark {\nstart: A B\nA: "a"{3}\nB: /[\\/"#%]/i\n}'), False),
    (lark('%import common.INT\n%ignore /[ \\t]+/\nstart: INT{1,30} ("é" | "a".."f")+'), False),
    (lark('start: text "!"\ntext[lazy]: ANY "</"\nANY: /(.|\\n)*/ & ~/(?s:.*)ab(?s:.*)/'), False),
    (lark('start: %regex {"substring_words": "' + "to quote from " * 4_000 + '"}'), False),
    (lark("start: WORD\nWORD: " + "\n  | ".join(f'"word {n}"' for n in range(900))), False),
    (
        lark(
            'start: p::0x0\np::_: "" %if is_ones([0:2])\n'
            ' | "a" p::set_bit(0) %if bit_clear(0)\n | "b" p::set_bit(1) %if bit_clear(1)'
        ),
        False,
    ),
]


def trial_of(checkpoint: Path) -> GrammarTrial:
    """A trial with a checkpoint's tokenizer."""
    return GrammarTrial((checkpoint / "tokenizer.json").read_text, (2,))


@pytest.fixture(scope="module")
def trial(tiny: Folders) -> Iterator[GrammarTrial]:
    made = trial_of(tiny.checkpoint)
    yield made
    made.close()


@pytest.mark.parametrize(("given", "plain"), TAKEN)
def test_what_people_send_is_taken(trial: GrammarTrial, given: dict[str, Any], plain: bool) -> None:
    grammar = checked_grammar(given)
    assert grammar is not None
    assert grammar.cheap == plain
    trial.require(grammar)  # also the plain ones, which a server does not try


@pytest.mark.parametrize(("kind", "given"), HIDDEN)
def test_what_no_bound_sees_ends_in_the_trial(trial: GrammarTrial, kind: str, given: str) -> None:
    with pytest.raises(
        MlflowException,
        match=r"response_format\.type='.*': expected a grammar that can be compiled",
    ) as caught:
        trial.require(Grammar(kind, given))
    assert caught.value.get_http_status_code() == 400
    assert GUIDANCE not in str(caught.value)
    assert len(str(caught.value)) < 600
    # the next one is tried, by a new process if need be
    trial.require(Grammar("regex", "[0-9]{4}"))


def test_a_grammar_that_takes_long_holds_the_others_for_no_more_than_the_quick_lane(
    trial: GrammarTrial, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three callers starved the others' regular expressions with new grammars of this kind."""
    trial.require(Grammar("regex", "[0-9]{8}"))
    reached, go_on = threading.Event(), threading.Event()

    def held(_: Grammar) -> dict[str, Any] | None:
        reached.set()
        assert go_on.wait(60)
        return None

    monkeypatch.setattr(trial.thorough, "attempt", held)
    refused: list[str] = []

    def attack() -> None:
        with pytest.raises(MlflowException) as caught:
            trial.require(Grammar(SLOW[0], f"{SLOW[1]} // one that is not known yet"))
        refused.append(str(caught.value))

    attacker = threading.Thread(target=attack)
    attacker.start()
    assert reached.wait(60)  # it left the quick lane, and is being tried
    try:
        trial.require(Grammar("regex", "[0-9]{9}"))
        assert not refused
    finally:
        go_on.set()
        attacker.join()
    assert "needs more than 0.25 s to compile" in refused[0]


@pytest.mark.skipif(not FORKS, reason="each is tried in the process itself")
def test_a_trial_that_is_ended_costs_the_next_one_no_start(trial: GrammarTrial) -> None:
    trial.require(Grammar("regex", "[0-9]{10}"))
    assert trial.quick.process is not None
    process = trial.quick.process.child.pid
    for number in range(3):
        with pytest.raises(MlflowException, match="expected a grammar that can be compiled"):
            trial.require(Grammar(SLOW[0], f"{SLOW[1]} // {number}"))
    trial.require(Grammar("regex", "[0-9]{11}"))
    assert trial.quick.process.child.pid == process


def test_who_asks_for_a_grammar_that_is_being_tried_waits_for_that_trial(
    trial: GrammarTrial, monkeypatch: pytest.MonkeyPatch
) -> None:
    reached, go_on, tried = threading.Event(), threading.Event(), []

    def held(grammar: Grammar) -> dict[str, Any]:
        tried.append(grammar.text)
        reached.set()
        assert go_on.wait(60)
        return {"took": [0.0, 0.0, 0.0], "failure": ""}

    for lane in (trial.quick, trial.thorough):
        monkeypatch.setattr(lane, "attempt", held)
    grammar = Grammar("regex", "the same")
    callers = [threading.Thread(target=trial.require, args=(grammar,)) for _ in range(4)]
    callers[0].start()
    assert reached.wait(60)
    for caller in callers[1:]:
        caller.start()
    go_on.set()
    for caller in callers:
        caller.join(60)
    trial.require(grammar)
    assert tried == ["the same"]


def test_grammars_in_use_are_remembered_longest(
    trial: GrammarTrial, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[str] = []

    def counted(grammar: Grammar) -> dict[str, Any]:
        tried.append(grammar.text)
        return {"took": [0.0, 0.0, 0.0], "failure": ""}

    for lane in (trial.quick, trial.thorough):
        monkeypatch.setattr(lane, "attempt", counted)
    monkeypatch.setattr(grammar_trial, "VERDICTS", 4)
    for number in range(20):
        trial.require(Grammar("regex", "in use"))
        trial.require(Grammar("regex", f"new {number}"))
    assert tried.count("in use") == 1


@pytest.mark.parametrize(("kind", "given"), HIDDEN[2:5])
def test_where_a_process_cannot_be_forked_the_process_itself_is_ended(
    tiny: Folders, monkeypatch: pytest.MonkeyPatch, kind: str, given: str
) -> None:
    for module in (grammar_process, grammar_trial):
        monkeypatch.setattr(module, "FORKS", False)
    made = trial_of(tiny.checkpoint)
    try:
        with pytest.raises(MlflowException, match="expected a grammar that can be compiled"):
            made.require(Grammar(kind, given))
        made.require(Grammar("regex", "[0-9]{4}"))
        assert made.quick.process is None
    finally:
        made.close()


def test_a_verdict_is_remembered(trial: GrammarTrial) -> None:
    trial.require(Grammar("regex", "[0-9]{5}"))
    trial.close()
    trial.require(Grammar("regex", "[0-9]{5}"))
    assert trial.quick.process is not None
    assert not trial.quick.process.alive


def test_a_process_that_was_killed_is_started_anew(trial: GrammarTrial) -> None:
    trial.require(Grammar("regex", "[0-9]{6}"))
    assert trial.quick.process is not None
    os.kill(trial.quick.process.child.pid, signal.SIGKILL)
    trial.quick.process.child.wait()
    trial.require(Grammar("regex", "[0-9]{7}"))


def test_a_forked_process_leaves_its_parents_alone(tiny: Folders) -> None:
    made = trial_of(tiny.checkpoint)
    made.require(Grammar("regex", "[0-9]{4}"))
    parents = made.quick.process
    assert parents is not None
    parents.owner, own = -1, parents.owner  # what a child sees after a fork
    made.renew_lock()
    made.require(Grammar("regex", "[0-9]{5}"))
    assert made.quick.process is not parents
    parents.end()
    assert parents.alive
    parents.owner = own
    parents.end()
    made.close()


def test_what_cannot_be_tried_is_not_the_callers_fault(
    tmp_path: Path, tiny: Folders, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "nothing"))
    with pytest.raises(
        MlflowException, match="cannot be tried now, as its process cannot be started"
    ) as caught:
        trial_of(tiny.checkpoint).require(Grammar("regex", "a"))
    assert caught.value.get_http_status_code() == 503


def test_the_process_knows_no_secret_and_is_ended(
    tiny: Folders, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOME_TOKEN", "a-secret")
    made = trial_of(tiny.checkpoint)
    made.require(Grammar("regex", "[0-9]{4}"))
    process = made.quick.process
    assert process is not None
    if sys.platform == "linux":
        assert b"a-secret" not in Path(f"/proc/{process.child.pid}/environ").read_bytes()
    made.close()
    assert not process.alive


PARENT = """
import sys, time
from pathlib import Path
from steps.wrappers.served.grammar_trial import GrammarTrial
from steps.wrappers.served.grammars import Grammar
trial = GrammarTrial((Path(sys.argv[1]) / "tokenizer.json").read_text, (2,))
trial.require(Grammar("regex", "[0-9]{4}"))
print(trial.quick.process.child.pid, flush=True)
time.sleep(60)
"""


def test_the_process_ends_with_a_parent_that_was_killed(tiny: Folders) -> None:
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, str(tiny.checkpoint)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert parent.stdout is not None
    child = parent.stdout.readline()
    parent.kill()
    parent.wait()
    parent.stdout.close()
    deadline = time.monotonic() + 20
    while (
        psutil.pid_exists(int(child))
        and psutil.Process(int(child)).status() != psutil.STATUS_ZOMBIE
    ):
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.parametrize("variant", ["onnx", "transformers"])
def test_the_logged_file_tries_grammars_by_itself(
    variant: str, tiny: Folders, tmp_path: Path
) -> None:
    """A server has one file, under a name that nothing can import, and no ``steps``."""
    file = tmp_path / "model.py"
    file.write_text(bundle(variant))
    spec = importlib.util.spec_from_file_location("unnamed_model", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    if variant == "onnx":
        model, folder = module.OnnxChatModel(), tiny.onnx("fp32")
    else:
        model, folder = module.TransformersChatModel(), tiny.checkpoint
    model.load_context(Context({"model": str(folder)}, {"name": NAME}))
    file.unlink()
    try:
        [answer] = model.predict(None, say("A year", response_format=regex("[0-9]{4}")))
        assert len(text(answer)) == 4
    finally:
        model.close()


def test_an_engines_words_are_told_from_a_broken_engine() -> None:
    assert fault_of_grammar(
        RuntimeError("Error committing tokens: Parser Error: Current row has 4007 items")
    )
    assert not fault_of_grammar(
        RuntimeError("Non-zero status code returned while running GroupQueryAttention")
    )
