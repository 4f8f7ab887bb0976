"""The report of an evaluation: plain data, one JSON file, checked against a published schema.

``report.schema.json`` beside this file is the schema; ``register`` and ``promote`` read nothing
else of an evaluation.
"""

import hashlib
import json
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

SCHEMA = "slm-promote/report/1"
SCHEMA_FILE = Path(__file__).with_name("report.schema.json")

PROMOTE, HOLD, INSUFFICIENT = "promote", "hold", "insufficient_evidence"


@dataclass(frozen=True)
class Gate:
    """One gate of the policy: what was measured, what the limit is, and what follows."""

    name: str
    value: float | str | bool | None
    limit: float | str | bool | list[str] | None
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
    latency_s: float
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
        """Read a report back.

        Raises:
            jsonschema.ValidationError: the text is not a report of this schema.
        """
        document = json.loads(text)
        validate(document)
        candidates = tuple(_candidate(each) for each in document.pop("candidates"))
        return cls(
            **{**document, "notes": tuple(document.get("notes", ())), "candidates": candidates}
        )


@cache
def _schema() -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(SCHEMA_FILE.read_text(encoding="utf-8"))
    return loaded


def validate(document: dict[str, Any]) -> None:
    """Raise ``jsonschema.ValidationError`` unless ``document`` is a report."""
    import jsonschema

    jsonschema.validate(document, _schema(), cls=jsonschema.Draft202012Validator)


def _candidate(document: dict[str, Any]) -> CandidateReport:
    quality, conformance, verdict = (
        document["quality"],
        document["conformance"],
        document["verdict"],
    )
    items = tuple(
        ItemResult(
            **{
                **item,
                "tags": tuple(item["tags"]),
                "checks": tuple(CheckResult(**check) for check in item["checks"]),
            }
        )
        for item in quality["items"]
    )
    return CandidateReport(
        **{
            **document,
            "failure": Failure(**document["failure"]) if document["failure"] else None,
            "quality": Quality(
                {name: SkillScore(**score) for name, score in quality["by_skill"].items()}, items
            ),
            "conformance": Conformance(
                tuple(ConformanceRow(**row) for row in conformance["rows"]), conformance["complete"]
            ),
            "verdict": Verdict(
                verdict["decision"], tuple(Gate(**gate) for gate in verdict["gates"])
            ),
            "notes": tuple(document.get("notes", ())),
        }
    )
