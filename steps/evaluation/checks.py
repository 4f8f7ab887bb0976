"""Checks: code that says whether an answer holds what an item asks for.

A check is an object with a ``type``; its other keys are the check's settings, validated when the
pack is read. All text checks ignore case and fold white space unless ``case_sensitive`` is set.
``all_of``, ``any_of`` and ``not`` combine checks.

equals: the answer is one of ``values``, but for marks around it; ``exact`` minds those too.
contains_any, contains_all, contains_none: ``values`` in the answer as whole words, or anywhere with
``whole_words`` false. starts_with, ends_with: with one of ``values``.
regex: ``pattern`` is found in the answer; ``^`` and ``$`` are those of a line, ``\\A`` and ``\\Z``
those of the answer.
number: ``value`` within ``tolerance`` is the ``which`` (first, last or any) of the answer's
    numbers, in figures or words; those listed in ``besides``, usually the question's own, are
    passed over.
json_valid, json_schema: the answer, or its first fenced block, is JSON (that ``schema`` describes).
word_count, sentence_count, line_count, bullets: from ``min`` to ``max``; ``marker`` says which
bullets count (dash, star or number).
choice: the first named of ``options`` is ``value``; with ``only`` it is the only one named. What is
negated ("not spam") is not named.
case: all letters are ``upper`` or ``lower``.
copies: at most the share ``max`` of the answer's runs of four words stands in ``source``, by
default the item's messages.
refusal: the answer declines (see ``refusals``), or with ``value`` false does not.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import jsonschema
from referencing import Registry, Resource
from referencing.exceptions import Unresolvable
from referencing.jsonschema import DRAFT202012

from steps.core import did_you_mean
from steps.evaluation import check_functions as functions
from steps.evaluation.check_functions import Settings
from steps.evaluation.report import CheckResult

_STRINGS = {"type": "array", "items": {"type": "string", "minLength": 1}, "minItems": 1}
_COUNT = {"type": "integer", "minimum": 0}
_CASE = {"case_sensitive": {"type": "boolean"}}
_RANGE = {"min": _COUNT, "max": _COUNT}


def _all_of(answer: str, settings: Settings) -> functions.Outcome:
    results = [run(check, answer) for check in settings["checks"]]
    failed = [f"{result.type}: {result.detail}" for result in results if not result.passed]
    return not failed, "; ".join(failed) or "all hold"


def _any_of(answer: str, settings: Settings) -> functions.Outcome:
    results = [run(check, answer) for check in settings["checks"]]
    held = [result.type for result in results if result.passed]
    return bool(held), (
        f"held: {held}"
        if held
        else "; ".join(f"{result.type}: {result.detail}" for result in results)
    )


def _not(answer: str, settings: Settings) -> functions.Outcome:
    inner = run(settings["check"], answer)
    return not inner.passed, f"{inner.type}: {inner.detail}"


@dataclass(frozen=True)
class Kind:
    """One check type: its function, its settings' JSON schemas and which of them must be there."""

    function: Callable[[str, Settings], functions.Outcome]
    settings: dict[str, Any]
    required: tuple[str, ...] = ()


_TEXT = {"values": _STRINGS, **_CASE}
_CONTAINED = {**_TEXT, "whole_words": {"type": "boolean"}}
_NESTED: dict[str, Any] = {"type": "object", "required": ["type"]}
KINDS: dict[str, Kind] = {
    "equals": Kind(functions.equals, {**_TEXT, "exact": {"type": "boolean"}}, ("values",)),
    "contains_any": Kind(functions.contains_any, _CONTAINED, ("values",)),
    "contains_all": Kind(functions.contains_all, _CONTAINED, ("values",)),
    "contains_none": Kind(functions.contains_none, _CONTAINED, ("values",)),
    "regex": Kind(
        functions.regex, {"pattern": {"type": "string", "format": "regex"}, **_CASE}, ("pattern",)
    ),
    "number": Kind(
        functions.number,
        {
            "value": {"type": "number"},
            "tolerance": {"type": "number", "minimum": 0},
            "which": {"enum": ["first", "last", "any"]},
            "besides": {"type": "array", "items": {"type": "number", "minimum": 0}},
        },
        ("value",),
    ),
    "json_valid": Kind(functions.json_valid, {}),
    "json_schema": Kind(functions.json_schema, {"schema": {"type": "object"}}, ("schema",)),
    "word_count": Kind(functions.word_count, _RANGE),
    "sentence_count": Kind(functions.sentence_count, _RANGE),
    "line_count": Kind(functions.line_count, _RANGE),
    "bullets": Kind(functions.bullets, {**_RANGE, "marker": {"enum": sorted(functions.MARKERS)}}),
    "choice": Kind(
        functions.choice,
        {"options": _STRINGS, "value": {"type": "string"}, "only": {"type": "boolean"}},
        ("options", "value"),
    ),
    "case": Kind(functions.case, {"value": {"enum": ["upper", "lower"]}}, ("value",)),
    "starts_with": Kind(functions.starts_with, _TEXT, ("values",)),
    "ends_with": Kind(functions.ends_with, _TEXT, ("values",)),
    "copies": Kind(
        functions.copies,
        {
            "max": {"type": "number", "minimum": 0, "maximum": 1},
            "source": {"type": "string", "minLength": 1},
        },
        ("max",),
    ),
    "refusal": Kind(functions.refusal, {"value": {"type": "boolean"}}),
    "all_of": Kind(
        _all_of, {"checks": {"type": "array", "items": _NESTED, "minItems": 1}}, ("checks",)
    ),
    "any_of": Kind(
        _any_of, {"checks": {"type": "array", "items": _NESTED, "minItems": 1}}, ("checks",)
    ),
    "not": Kind(_not, {"check": _NESTED}, ("check",)),
}


def problem(check: object) -> str | None:
    """What is wrong with a check as an item states it, or None."""
    if not isinstance(check, Mapping) or not isinstance(check.get("type"), str):
        return "checks that are objects with a string 'type'"
    kind = KINDS.get(check["type"])
    if kind is None:
        hint = did_you_mean.hint(check["type"], KINDS) or f"known: {', '.join(sorted(KINDS))}"
        return f"the name of a check; unknown check {check['type']!r}; {hint}"
    schema = {
        "type": "object",
        "properties": {"type": {"type": "string"}, **kind.settings},
        "required": list(kind.required),
        "additionalProperties": False,
    }
    validator = jsonschema.Draft202012Validator(schema, format_checker=jsonschema.FormatChecker())
    for error in validator.iter_errors(dict(check)):
        return f"settings that check {check['type']!r} takes: {error.message}"
    if kind.settings.keys() >= _RANGE.keys():
        low, high = check.get("min", 0), check.get("max", float("inf"))
        if low > high:
            return f"a max of check {check['type']!r} from min on: min {low} is above max {high}"
        if (low, high) == (0, float("inf")):
            return f"a min above 0 or a max of check {check['type']!r}: any answer would hold it"
    if check["type"] == "copies" and check["max"] == 1:
        return "a max of check 'copies' below 1: any answer would hold it"
    if check["type"] == "json_schema":
        try:
            jsonschema.Draft202012Validator.check_schema(check["schema"])
        except jsonschema.SchemaError as error:
            return f"a JSON schema in check 'json_schema': {error.message}"
        for reference in _references(check["schema"]):
            if not _leads_somewhere(check["schema"], reference):
                said = "a $ref to a part of the schema itself in check 'json_schema', such as"
                return f"{said} #/$defs/name, not {reference!r}"
    if check["type"] == "choice" and functions.fold(check["value"]) not in [
        functions.fold(option) for option in check["options"]
    ]:
        return f"a value of check 'choice' among its options, not {check['value']!r}"
    nested = (
        check.get("checks", [])
        if check["type"] in ("all_of", "any_of")
        else [check["check"]]
        if check["type"] == "not"
        else []
    )
    return next((wrong for inner in nested if (wrong := problem(inner))), None)


def _references(schema: object) -> Iterator[str]:
    """Every ``$ref`` of a JSON schema."""
    if isinstance(schema, Mapping):
        for key, value in schema.items():
            if key in ("$ref", "$dynamicRef") and isinstance(value, str):
                yield value
            else:
                yield from _references(value)
    elif isinstance(schema, list):
        for value in schema:
            yield from _references(value)


def _leads_somewhere(schema: Any, reference: str) -> bool:
    resource = Resource.from_contents(schema, default_specification=DRAFT202012)
    resolver = Registry().with_resource("", resource).resolver()
    try:
        resolver.lookup(reference)
    except (Unresolvable, ValueError):
        return False
    return True


def bind(check: Settings, prompt: str) -> Settings:
    """The check with what it needs of its item: each ``copies`` in it gets the prompt as its
    ``source``, unless it has one.

    ``run`` sees an answer alone, so that an answer can be judged again wherever its checks are
    kept, such as beside a trace.
    """
    if check["type"] == "copies":
        return {"source": prompt, **check}
    if check["type"] in ("all_of", "any_of"):
        return {**check, "checks": [bind(inner, prompt) for inner in check["checks"]]}
    return {**check, "check": bind(check["check"], prompt)} if check["type"] == "not" else check


def run(check: Settings, answer: str) -> CheckResult:
    """Apply one validated check to an answer."""
    passed, detail = KINDS[check["type"]].function(answer, check)
    return CheckResult(check["type"], passed, detail)
