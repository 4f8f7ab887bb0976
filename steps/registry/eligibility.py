"""Where a version stands: its evidence, and what the policy objects to."""

from __future__ import annotations

from dataclasses import dataclass

from steps.config import names
from steps.config.promotion import PromotionConfig
from steps.core import tags
from steps.core.commands import mlflow_run
from steps.core.redaction import redact
from steps.evaluation.report import CandidateReport
from steps.registry import evidence_selection
from steps.registry.aliases import ONNX, TRANSFORMERS
from steps.registry.client import RegistryClient
from steps.registry.evidence import Evidence
from steps.registry.evidence_selection import Choice
from steps.registry.model_version import Version
from steps.registry.result import RefusedError

UNKNOWN = "unknown"  # what a report says of bytes that were not hashed


@dataclass(frozen=True)
class Assessment:
    """What speaks for a version, and what against it."""

    version: Version
    evidence: Evidence | None
    candidate: CandidateReport | None  # what the evidence says of the version's model
    digest: str  # of the bytes that may be promoted
    objections: tuple[str, ...]  # a person may overrule these with a reason


def assess(
    registry: RegistryClient,
    version: Version,
    policy: PromotionConfig,
    *,
    report_uri: str | None = None,
    choice: Choice | None = None,
) -> Assessment:
    """Gather a version's evidence and hold it against the policy.

    Args:
        registry: the calls to the tracking server.
        version: to look at.
        policy: what evidence must be like; its alias is the one that is to move.
        report_uri: the report to go by, where somebody named one.
        choice: the report to go by; the default is what
            :func:`steps.registry.evidence_selection.choose` finds.

    Raises:
        RefusedError: the evidence is about other bytes, or it is not recorded which bytes this
            version has: not to be overruled.
    """
    choice = choice or evidence_selection.choose(registry, version, policy, report_uri)
    report, trouble = choice.evidence, choice.trouble
    model_id = version.model_id
    candidate = report.of(model_id, version.tags.get(tags.DIGEST)) if report else None
    recorded = {
        source: value
        for source, value in (
            ("the report", candidate.digest if candidate else None),
            ("the version's tag", version.tags.get(tags.DIGEST)),
            ("the logged model's tag", registry.tags_of_logged(version).get(tags.DIGEST)),
        )
        if value and value != UNKNOWN
    }
    command = evaluate_command(registry, version, policy.alias)
    if not recorded:
        raise RefusedError(
            f"{version.uri}: it is not recorded which bytes it has, so no evidence can be about"
            f" them; evaluate it: {command}"
        )
    if len(set(recorded.values())) > 1:
        words = ", ".join(f"{source} says {value}" for source, value in recorded.items())
        raise RefusedError(
            f"{version.uri}: {words}. The evidence is about other bytes, which no reason overrules;"
            f" evaluate it: {command}"
        )
    objections: list[str] = []
    if report is None:
        objections.append(f"{trouble}; evaluate it: {command}")
    elif candidate is None:
        objections.append(f"{report.uri} says nothing about {model_id}; evaluate it: {command}")
    else:
        objections += [trouble] if report_uri and trouble else []
        objections += _against(report, candidate, policy, command)
    return Assessment(
        version,
        report,
        candidate,
        next(iter(recorded.values())),
        tuple(redact(objection) for objection in objections),
    )


def evaluate_command(registry: RegistryClient, version: Version, alias: str) -> str:
    """What makes evidence about a version, for an alias."""
    uris = ",".join(map(names.quoted, candidates(registry, version)))
    overrides = [
        f"model.registered_name={names.quoted(version.name)}",
        f"evaluate.candidates=[{uris}]",
        *([f"promotion.alias={alias}"] if alias != "champion" else []),
    ]
    return mlflow_run("evaluate", overrides=overrides)


def candidates(registry: RegistryClient, version: Version) -> list[str]:
    """What must be evaluated to judge a version: itself, and for an ONNX build the checkpoint that
    it was converted from.

    How far a conversion strays is measured against the transformers variant of the same snapshot:
    the version with that alias, or else the newest one. Without it, no evidence about a conversion
    could ever be enough.
    """
    if version.tags.get(tags.VARIANT, registry.tags_of_logged(version).get(tags.VARIANT)) != ONNX:
        return [version.uri]
    snapshot = _snapshot(registry, version)
    at = (registry.aliases(version.name) or {}).get(TRANSFORMERS)
    known = sorted(
        registry.versions(version.name),
        key=lambda other: (other.number == at, other.number),
        reverse=True,
    )
    for other in known if snapshot else ():
        variant = other.tags.get(tags.VARIANT) or registry.tags_of_logged(other).get(tags.VARIANT)
        if variant == TRANSFORMERS and _snapshot(registry, other) == snapshot:
            return [version.uri, other.uri]
    return [version.uri]


def _snapshot(registry: RegistryClient, version: Version) -> str | None:
    """Digest of the version's snapshot; older versions have it on their logged model only."""
    return version.tags.get(tags.SNAPSHOT_DIGEST) or registry.tags_of_logged(version).get(
        tags.SNAPSHOT_DIGEST
    )


def _against(
    report: Evidence, candidate: CandidateReport, policy: PromotionConfig, command: str
) -> list[str]:
    objections: list[str] = []
    if untimely := report.untimely(policy.max_evidence_age_days):
        objections.append(f"its evidence {report.uri} {untimely}; evaluate it again: {command}")
    if other := report.other_gates(policy.gates):
        objections.append(f"it was judged by other gates ({other}); evaluate it again: {command}")
    if candidate.status != "evaluated":
        objections.append(
            f"it could not be evaluated ({candidate.failure_reason}); evaluate it again: {command}"
        )
    elif not candidate.passes:
        gates = "; ".join(
            f"{gate.name}={gate.value} (limit {gate.limit}) {gate.reason}"
            for gate in candidate.failed_gates
        )
        objections.append(
            f"its verdict is {candidate.verdict.decision!r}{': ' + gates if gates else ''}"
        )
    return objections
