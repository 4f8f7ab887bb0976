"""Functions that say whether an answer holds a check; each takes the answer and the check's
settings.
"""

import json
import re
import unicodedata
from collections.abc import Mapping
from typing import Any

import jsonschema

from steps.evaluation.numbers_in_text import numbers
from steps.evaluation.refusals import refuses

Settings = Mapping[str, Any]
Outcome = tuple[bool, str]  # whether it holds, and what was seen

_QUOTES = str.maketrans({"\u2019": "'", "\u2018": "'", "\u201c": '"', "\u201d": '"'})
_FENCE = re.compile(r"```[a-zA-Z]*\s*\n(.*?)```", re.DOTALL)
MARKERS = {"dash": r"[-\u2013]", "star": r"\*", "number": r"\d+[.)]"}
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


def equals(answer: str, settings: Settings) -> Outcome:
    strict = bool(settings.get("case_sensitive"))
    given = fold(answer, strict)
    given = given if settings.get("exact") else given.strip(" .!\"'`*")
    wanted = [fold(value, strict) for value in settings["values"]]
    return given in wanted, f"answer is {given[:80]!r}"


def _contains(answer: str, settings: Settings) -> list[str]:
    strict = bool(settings.get("case_sensitive"))
    text = fold(answer, strict)
    contained = []
    for value in settings["values"]:
        wanted = re.escape(fold(value, strict))
        if settings.get("whole_words", True):  # "four" must not be found in "fourteen"
            wanted = rf"(?<!\w){wanted}(?!\w)"
        if re.search(wanted, text):
            contained.append(value)
    return contained


def contains_any(answer: str, settings: Settings) -> Outcome:
    found = _contains(answer, settings)
    return bool(found), f"found {found}" if found else f"none of {list(settings['values'])}"


def contains_all(answer: str, settings: Settings) -> Outcome:
    missing = [value for value in settings["values"] if value not in _contains(answer, settings)]
    return not missing, f"missing {missing}" if missing else "all found"


def contains_none(answer: str, settings: Settings) -> Outcome:
    found = _contains(answer, settings)
    return not found, f"found {found}" if found else "none found"


def regex(answer: str, settings: Settings) -> Outcome:
    flags = 0 if settings.get("case_sensitive") else re.IGNORECASE
    hit = re.search(settings["pattern"], answer.strip(), flags | re.MULTILINE)
    return hit is not None, f"matched {hit.group()[:60]!r}" if hit else "no match"


def number(answer: str, settings: Settings) -> Outcome:
    passed_over = settings.get("besides", ())
    found = [value for value in numbers(fold(answer)) if abs(value) not in passed_over]
    which = settings.get("which", "last")
    picked = found if which == "any" else found[:1] if which == "first" else found[-1:]
    near = any(abs(value - settings["value"]) <= settings.get("tolerance", 0) for value in picked)
    return near, f"numbers {found[:8]}, wanted {settings['value']} ({which})"


def json_valid(answer: str, _: Settings) -> Outcome:
    try:
        extract_json(answer)
    except ValueError as error:
        return False, f"no JSON: {error}"
    return True, "parses"


def json_schema(answer: str, settings: Settings) -> Outcome:
    try:
        value = extract_json(answer)
    except ValueError as error:
        return False, f"no JSON: {error}"
    failures = [
        f"{error.json_path}: {error.message}"
        for error in jsonschema.Draft202012Validator(settings["schema"]).iter_errors(value)
    ]
    return not failures, failures[0][:160] if failures else "valid"


def _within(count: int, settings: Settings, what: str) -> Outcome:
    low, high = settings.get("min", 0), settings.get("max", float("inf"))
    return low <= count <= high, f"{count} {what}, wanted {low} to {high}"


def word_count(answer: str, settings: Settings) -> Outcome:
    return _within(len(re.findall(r"[\w'\u2019-]*\w[\w'\u2019-]*", answer)), settings, "words")


def sentence_count(answer: str, settings: Settings) -> Outcome:
    text = _ABBREVIATION.sub(r"\1", answer.strip())
    return _within(
        len([part for part in re.split(r"[.!?]+[\"'\u201d)]*(?:\s|$)", text) if part.strip()]),
        settings,
        "sentences",
    )


def line_count(answer: str, settings: Settings) -> Outcome:
    return _within(len([line for line in answer.splitlines() if line.strip()]), settings, "lines")


def bullets(answer: str, settings: Settings) -> Outcome:
    bullet = re.compile(rf"\s*(?:{MARKERS.get(settings.get('marker', ''), _ANY_MARKER)})\s+\S")
    return _within(
        len([line for line in answer.splitlines() if bullet.match(line)]), settings, "bullets"
    )


def _named(text: str, option: str) -> int | None:
    """Where a folded text first names an option without denying it."""
    for match in re.finditer(rf"(?<!\w){re.escape(option)}(?!\w)", text):
        if not re.search(_NEGATION, text[: match.start()]):
            return match.start()
    return None


def choice(answer: str, settings: Settings) -> Outcome:
    text = fold(answer)
    places = {
        option: place
        for option in settings["options"]
        if (place := _named(text, fold(option))) is not None
    }
    if not places:
        return False, "names no option"
    if settings.get("only", False) and len(places) > 1:
        return False, f"names several options: {sorted(places)}"
    first = min(places, key=lambda option: places[option])
    return fold(first) == fold(settings["value"]), f"chose {first!r}, wanted {settings['value']!r}"


def case(answer: str, settings: Settings) -> Outcome:
    letters = [character for character in answer if character.isalpha()]
    wanted = str.isupper if settings["value"] == "upper" else str.islower
    return bool(letters) and all(map(wanted, letters)), f"{len(letters)} letters"


def starts_with(answer: str, settings: Settings) -> Outcome:
    strict = bool(settings.get("case_sensitive"))
    text = fold(answer, strict)
    return (
        any(text.startswith(fold(value, strict)) for value in settings["values"]),
        f"starts {text[:40]!r}",
    )


def ends_with(answer: str, settings: Settings) -> Outcome:
    strict = bool(settings.get("case_sensitive"))
    text = fold(answer, strict)
    return (
        any(text.endswith(fold(value, strict)) for value in settings["values"]),
        f"ends {text[-40:]!r}",
    )


def copies(answer: str, settings: Settings) -> Outcome:
    runs, source = _runs(answer), set(_runs(settings.get("source", "")))
    share = sum(run in source for run in runs) / len(runs) if runs else 0.0
    return (
        share <= settings["max"],
        (
            f"{share:.0%} of {len(runs)} runs of {RUN_OF_WORDS} words are copied, wanted at most"
            f" {settings['max']:.0%}"
        ),
    )


def _runs(text: str) -> list[tuple[str, ...]]:
    words = re.findall(r"\w+", fold(text))
    return [
        tuple(words[start : start + RUN_OF_WORDS]) for start in range(len(words) - RUN_OF_WORDS + 1)
    ]


def refusal(answer: str, settings: Settings) -> Outcome:
    refused = refuses(fold(answer))
    return refused is settings.get("value", True), "refuses" if refused else "does not refuse"
