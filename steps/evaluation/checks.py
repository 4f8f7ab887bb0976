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

import json
import re
import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from steps.evaluation.numbers import numbers
from steps.evaluation.refusals import refuses
from steps.evaluation.report import CheckResult

Spec = Mapping[str, Any]
Outcome = tuple[bool, str]

_STRINGS = {"type": "array", "items": {"type": "string", "minLength": 1}, "minItems": 1}
_COUNT = {"type": "integer", "minimum": 0}
_CASE = {"case_sensitive": {"type": "boolean"}}
_RANGE = {"min": _COUNT, "max": _COUNT}
_QUOTES = str.maketrans({"\u2019": "'", "\u2018": "'", "\u201c": '"', "\u201d": '"'})
_FENCE = re.compile(r"```[a-zA-Z]*\s*\n(.*?)```", re.DOTALL)
_MARKERS = {"dash": r"[-\u2013]", "star": r"\*", "number": r"\d+[.)]"}
_ANY_MARKER = r"[-*•\u2013]|\d+[.)]"
_ABBREVIATION = re.compile(r"\b(Mr|Mrs|Ms|Dr|St|e\.g|i\.e)\.(?=\s+\S)")
_NEGATION = (
    r"(?:\bnot|\w+n't|\bneither|\bnor|\brather than|\binstead of)(?:"
    r" (?:an?|the|really|very|about|on|in))* [\"'*]*$"
)
RUN_OF_WORDS = 4  # shorter runs are shared by any two texts on one subject


def fold(text: str, case_sensitive: bool = False) -> str:
    """Normalise quotes, Unicode form and white space, and case unless told otherwise."""
    text = unicodedata.normalize("NFKC", text).translate(_QUOTES)
    text = " ".join(text.split())
    return text if case_sensitive else text.casefold()


def extract_json(text: str) -> Any:
    """The JSON value in an answer: the whole of it, or its first fenced block.

    Raises:
        ValueError: neither parses.
    """
    fenced = _FENCE.search(text)
    return json.loads(fenced.group(1) if fenced else text)


def _equals(answer: str, spec: Spec) -> Outcome:
    strict = bool(spec.get("case_sensitive"))
    given = fold(answer, strict)
    given = given if spec.get("exact") else given.strip(" .!\"'`*")
    wanted = [fold(value, strict) for value in spec["values"]]
    return given in wanted, f"answer is {given[:80]!r}"


def _contains(answer: str, spec: Spec) -> list[str]:
    strict = bool(spec.get("case_sensitive"))
    text = fold(answer, strict)
    found = []
    for value in spec["values"]:
        wanted = re.escape(fold(value, strict))
        if spec.get("whole_words", True):  # "four" must not be found in "fourteen"
            wanted = rf"(?<!\w){wanted}(?!\w)"
        if re.search(wanted, text):
            found.append(value)
    return found


def _contains_any(answer: str, spec: Spec) -> Outcome:
    found = _contains(answer, spec)
    return bool(found), f"found {found}" if found else f"none of {list(spec['values'])}"


def _contains_all(answer: str, spec: Spec) -> Outcome:
    missing = [value for value in spec["values"] if value not in _contains(answer, spec)]
    return not missing, f"missing {missing}" if missing else "all found"


def _contains_none(answer: str, spec: Spec) -> Outcome:
    found = _contains(answer, spec)
    return not found, f"found {found}" if found else "none found"


def _regex(answer: str, spec: Spec) -> Outcome:
    flags = 0 if spec.get("case_sensitive") else re.IGNORECASE
    hit = re.search(spec["pattern"], answer.strip(), flags | re.MULTILINE)
    return hit is not None, f"matched {hit.group()[:60]!r}" if hit else "no match"


def _number(answer: str, spec: Spec) -> Outcome:
    passed_over = spec.get("besides", ())
    found = [value for value in numbers(fold(answer)) if abs(value) not in passed_over]
    which = spec.get("which", "last")
    picked = found if which == "any" else found[:1] if which == "first" else found[-1:]
    near = any(abs(value - spec["value"]) <= spec.get("tolerance", 0) for value in picked)
    return near, f"numbers {found[:8]}, wanted {spec['value']} ({which})"


def _json_valid(answer: str, _: Spec) -> Outcome:
    try:
        extract_json(answer)
    except ValueError as error:
        return False, f"no JSON: {error}"
    return True, "parses"


def _json_schema(answer: str, spec: Spec) -> Outcome:
    import jsonschema

    try:
        value = extract_json(answer)
    except ValueError as error:
        return False, f"no JSON: {error}"
    failures = [
        f"{error.json_path}: {error.message}"
        for error in jsonschema.Draft202012Validator(spec["schema"]).iter_errors(value)
    ]
    return not failures, failures[0][:160] if failures else "valid"


def _within(count: int, spec: Spec, what: str) -> Outcome:
    low, high = spec.get("min", 0), spec.get("max", float("inf"))
    return low <= count <= high, f"{count} {what}, wanted {low} to {high}"


def _word_count(answer: str, spec: Spec) -> Outcome:
    return _within(len(re.findall(r"[\w'\u2019-]*\w[\w'\u2019-]*", answer)), spec, "words")


def _sentence_count(answer: str, spec: Spec) -> Outcome:
    text = _ABBREVIATION.sub(r"\1", answer.strip())
    return _within(
        len([part for part in re.split(r"[.!?]+[\"'\u201d)]*(?:\s|$)", text) if part.strip()]),
        spec,
        "sentences",
    )


def _line_count(answer: str, spec: Spec) -> Outcome:
    return _within(len([line for line in answer.splitlines() if line.strip()]), spec, "lines")


def _bullets(answer: str, spec: Spec) -> Outcome:
    bullet = re.compile(rf"\s*(?:{_MARKERS.get(spec.get('marker', ''), _ANY_MARKER)})\s+\S")
    return _within(
        len([line for line in answer.splitlines() if bullet.match(line)]), spec, "bullets"
    )


def _named(text: str, option: str) -> int | None:
    """Where a folded text first names an option without denying it."""
    for match in re.finditer(rf"(?<!\w){re.escape(option)}(?!\w)", text):
        if not re.search(_NEGATION, text[: match.start()]):
            return match.start()
    return None


def _choice(answer: str, spec: Spec) -> Outcome:
    text = fold(answer)
    places = {
        option: place
        for option in spec["options"]
        if (place := _named(text, fold(option))) is not None
    }
    if not places:
        return False, "names no option"
    if spec.get("only", False) and len(places) > 1:
        return False, f"names several options: {sorted(places)}"
    first = min(places, key=lambda option: places[option])
    return fold(first) == fold(spec["value"]), f"chose {first!r}, wanted {spec['value']!r}"


def _case(answer: str, spec: Spec) -> Outcome:
    letters = [character for character in answer if character.isalpha()]
    wanted = str.isupper if spec["value"] == "upper" else str.islower
    return bool(letters) and all(map(wanted, letters)), f"{len(letters)} letters"


def _starts_with(answer: str, spec: Spec) -> Outcome:
    strict = bool(spec.get("case_sensitive"))
    text = fold(answer, strict)
    return (
        any(text.startswith(fold(value, strict)) for value in spec["values"]),
        f"starts {text[:40]!r}",
    )


def _ends_with(answer: str, spec: Spec) -> Outcome:
    strict = bool(spec.get("case_sensitive"))
    text = fold(answer, strict)
    return (
        any(text.endswith(fold(value, strict)) for value in spec["values"]),
        f"ends {text[-40:]!r}",
    )


def _copies(answer: str, spec: Spec) -> Outcome:
    runs, source = _runs(answer), set(_runs(spec.get("source", "")))
    share = sum(run in source for run in runs) / len(runs) if runs else 0.0
    return (
        share <= spec["max"],
        (
            f"{share:.0%} of {len(runs)} runs of {RUN_OF_WORDS} words are copied, wanted at most"
            f" {spec['max']:.0%}"
        ),
    )


def _runs(text: str) -> list[tuple[str, ...]]:
    words = re.findall(r"\w+", fold(text))
    return [
        tuple(words[start : start + RUN_OF_WORDS]) for start in range(len(words) - RUN_OF_WORDS + 1)
    ]


def _refusal(answer: str, spec: Spec) -> Outcome:
    refused = refuses(fold(answer))
    return refused is spec.get("value", True), "refuses" if refused else "does not refuse"


def _all_of(answer: str, spec: Spec) -> Outcome:
    results = [run(check, answer) for check in spec["checks"]]
    failed = [f"{result.type}: {result.detail}" for result in results if not result.passed]
    return not failed, "; ".join(failed) or "all hold"


def _any_of(answer: str, spec: Spec) -> Outcome:
    results = [run(check, answer) for check in spec["checks"]]
    held = [result.type for result in results if result.passed]
    return bool(held), (
        f"held: {held}"
        if held
        else "; ".join(f"{result.type}: {result.detail}" for result in results)
    )


def _not(answer: str, spec: Spec) -> Outcome:
    inner = run(spec["check"], answer)
    return not inner.passed, f"{inner.type}: {inner.detail}"


@dataclass(frozen=True)
class _Kind:
    """One check type: its function, its settings' JSON schemas and which of them must be there."""

    function: Callable[[str, Spec], Outcome]
    settings: dict[str, Any]
    required: tuple[str, ...] = ()


_TEXT = {"values": _STRINGS, **_CASE}
_NESTED: dict[str, Any] = {"type": "object", "required": ["type"]}
KINDS: dict[str, _Kind] = {
    "equals": _Kind(_equals, {**_TEXT, "exact": {"type": "boolean"}}, ("values",)),
    "contains_any": _Kind(
        _contains_any, {**_TEXT, "whole_words": {"type": "boolean"}}, ("values",)
    ),
    "contains_all": _Kind(
        _contains_all, {**_TEXT, "whole_words": {"type": "boolean"}}, ("values",)
    ),
    "contains_none": _Kind(
        _contains_none, {**_TEXT, "whole_words": {"type": "boolean"}}, ("values",)
    ),
    "regex": _Kind(
        _regex, {"pattern": {"type": "string", "format": "regex"}, **_CASE}, ("pattern",)
    ),
    "number": _Kind(
        _number,
        {
            "value": {"type": "number"},
            "tolerance": {"type": "number", "minimum": 0},
            "which": {"enum": ["first", "last", "any"]},
            "besides": {"type": "array", "items": {"type": "number", "minimum": 0}},
        },
        ("value",),
    ),
    "json_valid": _Kind(_json_valid, {}),
    "json_schema": _Kind(_json_schema, {"schema": {"type": "object"}}, ("schema",)),
    "word_count": _Kind(_word_count, _RANGE),
    "sentence_count": _Kind(_sentence_count, _RANGE),
    "line_count": _Kind(_line_count, _RANGE),
    "bullets": _Kind(_bullets, {**_RANGE, "marker": {"enum": sorted(_MARKERS)}}),
    "choice": _Kind(
        _choice,
        {"options": _STRINGS, "value": {"type": "string"}, "only": {"type": "boolean"}},
        ("options", "value"),
    ),
    "case": _Kind(_case, {"value": {"enum": ["upper", "lower"]}}, ("value",)),
    "starts_with": _Kind(_starts_with, _TEXT, ("values",)),
    "ends_with": _Kind(_ends_with, _TEXT, ("values",)),
    "copies": _Kind(
        _copies,
        {
            "max": {"type": "number", "minimum": 0, "maximum": 1},
            "source": {"type": "string", "minLength": 1},
        },
        ("max",),
    ),
    "refusal": _Kind(_refusal, {"value": {"type": "boolean"}}),
    "all_of": _Kind(
        _all_of, {"checks": {"type": "array", "items": _NESTED, "minItems": 1}}, ("checks",)
    ),
    "any_of": _Kind(
        _any_of, {"checks": {"type": "array", "items": _NESTED, "minItems": 1}}, ("checks",)
    ),
    "not": _Kind(_not, {"check": _NESTED}, ("check",)),
}


def problem(check: object) -> str | None:
    """What is wrong with a check as an item states it, or None."""
    import jsonschema

    if not isinstance(check, Mapping) or not isinstance(check.get("type"), str):
        return "a check is an object with a string 'type'"
    kind = KINDS.get(check["type"])
    if kind is None:
        return f"unknown check {check['type']!r}; known: {', '.join(sorted(KINDS))}"
    schema = {
        "type": "object",
        "properties": {"type": {"type": "string"}, **kind.settings},
        "required": list(kind.required),
        "additionalProperties": False,
    }
    validator = jsonschema.Draft202012Validator(schema, format_checker=jsonschema.FormatChecker())
    for error in validator.iter_errors(dict(check)):
        return f"check {check['type']!r}: {error.message}"
    if kind.settings.keys() >= _RANGE.keys() and check.get("min", 0) > check.get(
        "max", float("inf")
    ):
        return f"check {check['type']!r}: min {check['min']} is above max {check['max']}"
    if check["type"] == "json_schema":
        try:
            jsonschema.Draft202012Validator.check_schema(check["schema"])
        except jsonschema.SchemaError as error:
            return f"check 'json_schema': {error.message}"
    if check["type"] == "choice" and fold(check["value"]) not in [
        fold(option) for option in check["options"]
    ]:
        return f"check 'choice': value {check['value']!r} is not among the options"
    nested = (
        check.get("checks", [])
        if check["type"] in ("all_of", "any_of")
        else [check["check"]]
        if check["type"] == "not"
        else []
    )
    return next((found for each in nested if (found := problem(each))), None)


def bind(check: Spec, prompt: str) -> Spec:
    """The check with what it needs of its item: each ``copies`` in it gets the prompt as its
    ``source``, unless it has one.

    ``run`` sees an answer alone, so that an answer can be judged again wherever its checks are
    kept, such as beside a trace.
    """
    if check["type"] == "copies":
        return {"source": prompt, **check}
    if check["type"] in ("all_of", "any_of"):
        return {**check, "checks": [bind(each, prompt) for each in check["checks"]]}
    return {**check, "check": bind(check["check"], prompt)} if check["type"] == "not" else check


def run(check: Spec, answer: str) -> CheckResult:
    """Apply one validated check to an answer."""
    passed, detail = KINDS[check["type"]].function(answer, check)
    return CheckResult(check["type"], passed, detail)
