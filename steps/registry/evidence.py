"""The part of an evaluation report that a promotion rests on."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from steps.config.gates import GatesConfig
from steps.core.errors import StepError
from steps.core.redaction import redact
from steps.registry.client import RegistryClient

SCHEMA = "slm-promote/report/1"
PROMOTE = "promote"
# the pack that shows that everything runs; it is weaker than any other, however many items are
# taken of it
SMOKE = "smoke"
CLOCK_TOLERANCE = timedelta(minutes=5)  # by how much the clocks of two machines may differ


@dataclass(frozen=True)
class Gate:
    """One limit of the policy, as the evaluation checked it."""

    name: str
    value: object
    limit: object
    passed: bool | None  # None: the evidence does not decide
    reason: str


@dataclass(frozen=True)
class Judged:
    """One model as the report judged it."""

    uri: str  # models:/m-…
    model_id: str
    variant: str  # transformers or onnx
    digest: str  # sha256:… over the logged model's files
    role: str  # candidate or incumbent
    status: str  # evaluated or failed
    metrics: Mapping[str, float]
    decision: str  # promote, hold or insufficient_evidence; "failed" where it was not evaluated
    gates: tuple[Gate, ...]
    conformance_limits: tuple[str, ...]  # rows of the chat contract that it does not hold
    failure: str | None

    @property
    def passes(self) -> bool:
        return self.status == "evaluated" and self.decision == PROMOTE


@dataclass(frozen=True)
class Evidence:
    """One report, and the digest that names its bytes."""

    uri: str  # runs:/<run>/report.json
    digest: str  # sha256:… over report.json
    created: datetime  # aware
    registered_name: str
    judged: tuple[Judged, ...]
    pack: Mapping[str, Any]
    snapshot: Mapping[str, Any]
    incumbent_version: int | None
    # the policy's gates that it judged by, as plain values; None where it does not say
    gates: Mapping[str, Any] | None = None
    # of report.json, which a signature is over
    text: str = field(default="", repr=False, compare=False)

    def of(self, model_id: str | None, digest: str | None = None) -> Judged | None:
        """What the report says of a logged model, if anything: by its id, or by its bytes, as an
        imported model has an id of its own.
        """
        by_id = next((each for each in self.judged if model_id and each.model_id == model_id), None)
        return by_id or next(
            (each for each in self.judged if digest and each.digest == digest), None
        )

    def other_gates(self, gates: GatesConfig) -> str:
        """Which gates the report judged by that are not these, in words; empty where they are the
        same.
        """
        if self.gates is None:
            return ""
        then, now = _leaves(self.gates), _leaves(json.loads(json.dumps(asdict(gates))))
        return ", ".join(
            f"{key}={then.get(key)} then, {now.get(key)} now"
            for key in sorted({*then, *now})
            if then.get(key) != now.get(key)
        )

    @property
    def strength(self) -> tuple[bool, int]:
        """How much it weighs beside another report: the smoke pack least, then by the number of
        items.
        """
        return self.pack.get("name") != SMOKE, _whole(self.pack.get("items")) or 0

    @property
    def size(self) -> str:
        """Its pack in words."""
        return f"pack {self.pack.get('name', 'unknown')}, {self.strength[1]} items"

    def untimely(self, limit_days: float, now: datetime | None = None) -> str | None:
        """What is wrong with its date, in words; None where it counts.

        A report of exactly the limit counts, and so does one that is ahead of this machine's clock
        by no more than the tolerance.
        """
        age = (now or datetime.now(UTC)) - self.created
        if age < -CLOCK_TOLERANCE:
            ahead = -age.total_seconds() / 86_400
            return (
                f"is dated {ahead:.1f} days in the future (clocks may differ by"
                f" {CLOCK_TOLERANCE.total_seconds() / 60:.0f} minutes)"
            )
        if age > timedelta(days=limit_days):
            return (
                f"is {age.total_seconds() / 86_400:.1f} days old,"
                f" promotion.max_evidence_age_days={limit_days:g}"
            )
        return None

    def age_days(self, now: datetime | None = None) -> float:
        return ((now or datetime.now(UTC)) - self.created).total_seconds() / 86_400


def read(uri: str, registry: RegistryClient) -> Evidence:
    """Evidence at a report URI.

    Raises:
        ServerUnavailableError: the tracking server does not answer, so nothing is known of the
        report.
        StepError: there is no report there, or it is not one that this version reads.
    """
    from mlflow.exceptions import MlflowException

    try:
        text = registry.text(uri)
    except (MlflowException, OSError, UnicodeDecodeError, ImportError) as error:
        # ImportError: of the client of an artifact store
        raise StepError(
            f"report_uri={redact(uri)!r}: no report could be read there ({redact(str(error))});"
            " make one with `mlflow run . -e evaluate`"
        ) from error
    return parse(uri, text)


def parse(uri: str, text: str) -> Evidence:
    """Evidence in the text of a ``report.json``.

    Raises:
        StepError: the text is not a report of the schema ``slm-promote/report/1``.
    """
    try:
        report = json.loads(text)
        if report["schema"] != SCHEMA:
            raise StepError(
                f"report_uri={uri!r}: schema is {report['schema']!r}, expected {SCHEMA!r}; evaluate"
                " again with this version"
            )
        created = datetime.fromisoformat(report["created"])
        _whole((report.get("pack") or {}).get("items"))
        return Evidence(
            uri=uri,
            digest="sha256:" + hashlib.sha256(text.encode()).hexdigest(),
            created=created if created.tzinfo else created.replace(tzinfo=UTC),
            registered_name=report["registered_name"],
            judged=tuple(_judged(each) for each in report["candidates"]),
            pack=_mapping(report.get("pack"), "pack") or {},
            snapshot=_mapping(report.get("snapshot"), "snapshot") or {},
            incumbent_version=_whole((report.get("incumbent") or {}).get("version")),
            gates=_mapping((report.get("policy") or {}).get("gates"), "policy.gates"),
            text=text,
        )
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise StepError(
            f"report_uri={uri!r}: not an evaluation report ({type(error).__name__}: {error})"
        ) from error


def _judged(entry: Mapping[str, Any]) -> Judged:
    verdict = entry.get("verdict") or {}
    failure = entry.get("failure")
    rows = (entry.get("conformance") or {}).get("rows") or []
    return Judged(
        uri=entry["uri"],
        model_id=entry["model_id"],
        variant=entry["variant"],
        digest=entry["digest"],
        role=entry.get("role", "candidate"),
        status=entry["status"],
        metrics={
            name: float(value)
            for name, value in (entry.get("metrics") or {}).items()
            if value is not None
        },
        decision=verdict.get("decision", "failed"),
        gates=tuple(
            Gate(
                gate["name"],
                gate.get("value"),
                gate.get("limit"),
                gate["passed"],
                str(gate.get("reason", "")),
            )
            for gate in verdict.get("gates", [])
        ),
        conformance_limits=tuple(
            f"{row['name']}: {row.get('limit') or row.get('detail') or 'not held'}"
            for row in rows
            if not row["passed"]
        ),
        failure=str(failure["reason"]) if failure else None,
    )


def _mapping(value: object, name: str) -> Mapping[str, Any] | None:
    """A node of a report; None where it is empty or not there."""
    if not value:
        return None
    if not isinstance(value, Mapping):
        raise TypeError(f"{name} is a {type(value).__name__}, expected an object")
    return value


def _leaves(node: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in node.items():
        found |= (
            _leaves(value, f"{prefix}{key}.")
            if isinstance(value, Mapping)
            else {prefix + key: value}
        )
    return found


def _whole(value: object) -> int | None:
    return None if value is None else int(str(value))
