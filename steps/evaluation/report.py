"""The report of an evaluation: plain data, one JSON file, checked against a published schema.

``report.schema.json`` beside this file is the schema of what is written. ``register`` and
``promote`` read nothing else of an evaluation, and read it as :class:`Report`.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pydantic import TypeAdapter

SCHEMA = "slm-promote/report/1"
SCHEMA_FILE = Path(__file__).with_name("report.schema.json")

PROMOTE, HOLD, INSUFFICIENT = "promote", "hold", "insufficient_evidence"


@dataclass(frozen=True)
class Gate:
    """One gate of the policy: what was measured, what the limit is, and what follows."""

    name: str
    value: float | int | str | bool | None
    limit: float | int | str | bool | list[str] | None
    passed: bool | None  # None: the evidence does not decide
    reason: str


@dataclass(frozen=True)
class Verdict:
    """What the policy says about one candidate."""

    decision: str  # promote, hold or insufficient_evidence
    gates: tuple[Gate, ...] = ()


@dataclass(frozen=True)
class CheckResult:
    """One check on one answer."""

    type: str
    passed: bool
    detail: str


@dataclass(frozen=True)
class ItemResult:
    """One answered item: score is 1 when all checks hold, else 0."""

    id: str
    tags: tuple[str, ...]
    answer: str
    score: float
    checks: tuple[CheckResult, ...]
    finish_reason: str | None
    completion_tokens: int
    latency_s: float  # among Quality.concurrent_items
    error: str | None = None


@dataclass(frozen=True)
class SkillScore:
    """Mean score of one skill with its 95 % Wilson interval."""

    score: float
    low: float
    high: float
    items: int


@dataclass(frozen=True)
class Quality:
    """What a candidate scored on the pack."""

    by_skill: dict[str, SkillScore] = field(default_factory=dict)
    items: tuple[ItemResult, ...] = ()
    concurrent_items: int = 1  # asked at once, which each latency was measured under


@dataclass(frozen=True)
class ConformanceRow:
    """One row of the chat contract; ``limit`` names a declared gap of the flavor."""

    name: str
    passed: bool
    limit: str | None
    detail: str


@dataclass(frozen=True)
class Conformance:
    """The chat contract, row by row. ``complete``: every row passed or is a named limit."""

    rows: tuple[ConformanceRow, ...] = ()
    complete: bool = False


@dataclass(frozen=True)
class Failure:
    """Why a candidate could not be judged."""

    reason: str
    log_tail: str


@dataclass(frozen=True)
class CandidateReport:
    """Everything about one candidate."""

    uri: str
    model_id: str
    variant: str
    digest: str
    role: str  # candidate or incumbent
    status: str  # evaluated or failed
    failure: Failure | None
    metrics: dict[str, float]
    quality: Quality
    conformance: Conformance
    verdict: Verdict
    licence: str | None = None
    # raw timings and fidelity curves behind the pictures
    series: dict[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()  # what was not measured, and why

    @property
    def failure_reason(self) -> str | None:
        return self.failure.reason if self.failure else None

    @property
    def passes(self) -> bool:
        return self.status == "evaluated" and self.verdict.decision == PROMOTE

    @property
    def failed_gates(self) -> tuple[Gate, ...]:
        """Gates that were not passed, or that the evidence does not decide."""
        return tuple(gate for gate in self.verdict.gates if gate.passed is not True)

    @property
    def conformance_limits(self) -> tuple[str, ...]:
        """Rows of the chat contract that it does not hold, with what is known about each."""
        return tuple(
            f"{row.name}: {row.limit or row.detail or 'not held'}"
            for row in self.conformance.rows
            if not row.passed
        )


@dataclass(frozen=True)
class Report:
    """One evaluation."""

    registered_name: str
    snapshot: dict[str, Any] | None
    incumbent: dict[str, Any] | None
    seed: int
    machine: dict[str, Any]
    pack: dict[str, Any]
    policy: dict[str, Any]
    candidates: tuple[CandidateReport, ...]
    created: str  # ISO 8601, UTC
    notes: tuple[str, ...] = ()
    # wanted: preferred or required; missing: what could not be had, one clause each
    isolation: dict[str, Any] | None = None
    schema: str = SCHEMA

    @property
    def busy(self) -> str:
        """What else took the machine while speed was measured, in words; empty where nothing did,
        or where the report is older than this question.
        """
        return str((self.machine.get("load") or {}).get("words") or "")

    def to_json(self) -> str:
        """The report as canonical JSON, checked against the published schema.

        Raises:
            jsonschema.ValidationError: the report does not hold what the schema promises.
        """
        document = json.loads(json.dumps(asdict(self), allow_nan=False))
        validate(document)
        return json.dumps(document, indent=1, ensure_ascii=False, sort_keys=True) + "\n"

    def write(self, path: Path) -> str:
        """Write the report atomically and return its evidence digest (``sha256:…`` over the file's
        bytes).
        """
        data = self.to_json().encode()
        part = path.with_name(path.name + ".part")
        part.write_bytes(data)
        part.replace(path)
        return "sha256:" + hashlib.sha256(data).hexdigest()

    @classmethod
    def from_json(cls, text: str) -> "Report":
        """Read a report. Fields that this version does not know are passed over, and what a
        promotion can do without may be missing.

        Raises:
            ValueError: the text is not a report of this schema; one line.
        """
        from pydantic import ValidationError

        try:
            document = json.loads(text)
            if not isinstance(document, dict) or "schema" not in document:
                raise ValueError("it has no schema")
            if document["schema"] != SCHEMA:
                raise ForeignSchemaError(f"schema is {document['schema']!r}, expected {SCHEMA!r}")
            document = {**MAY_BE_MISSING, **_without_nulls(document)}
            candidates = [_filled(candidate) for candidate in document["candidates"]]
            return _adapter().validate_python({**document, "candidates": candidates})
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            place = ".".join(map(str, first["loc"]))
            raise ValueError(f"{place}: {first['msg']}") from error
        except (KeyError, TypeError, AttributeError, RecursionError) as error:
            raise ValueError(f"{type(error).__name__}: {error}") from error


class ForeignSchemaError(ValueError):
    """A report of another schema than this version writes and reads."""


MAY_BE_MISSING: Mapping[str, Any] = {
    "snapshot": None,
    "incumbent": None,
    "seed": 0,
    "machine": {},
    "pack": {},
    "policy": {},
}
MAY_BE_MISSING_OF_A_CANDIDATE: Mapping[str, Any] = {
    "role": "candidate",
    "failure": None,
    "metrics": {},
    "quality": {},
    "conformance": {},
    "verdict": {"decision": "failed"},
}


def _filled(candidate: Mapping[str, Any]) -> dict[str, Any]:
    """A candidate as a report holds it, with what it may leave out."""
    filled = {**MAY_BE_MISSING_OF_A_CANDIDATE, **_without_nulls(candidate)}
    filled["metrics"] = _without_nulls(filled["metrics"])
    failure = filled["failure"]
    filled["failure"] = {"log_tail": "", **failure} if failure else None
    for part, rows, missing in (
        ("verdict", "gates", {"value": None, "limit": None, "reason": ""}),
        ("conformance", "rows", {"limit": None, "detail": ""}),
    ):
        given = filled[part].get(rows) or ()
        filled[part] = {**filled[part], rows: tuple({**missing, **row} for row in given)}
    return filled


def _without_nulls(node: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in node.items() if value is not None}


@cache
def _adapter() -> "TypeAdapter[Report]":
    from pydantic import TypeAdapter

    return TypeAdapter(Report)


@cache
def _schema() -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(SCHEMA_FILE.read_text(encoding="utf-8"))
    return loaded


def validate(document: dict[str, Any]) -> None:
    """Raise ``jsonschema.ValidationError`` unless ``document`` is a report."""
    import jsonschema

    jsonschema.validate(document, _schema(), cls=jsonschema.Draft202012Validator)
