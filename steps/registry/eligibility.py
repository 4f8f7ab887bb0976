"""Where a version stands: its evidence, and what the policy objects to."""

from __future__ import annotations

import shlex
from dataclasses import dataclass

from steps.config import names
from steps.config.root import Config
from steps.core.redaction import redact
from steps.evaluation.report import CandidateReport
from steps.registry import evidence_selection
from steps.registry.aliases import DIGEST_TAG, ONNX, SNAPSHOT_TAG, TRANSFORMERS, VARIANT_TAG
from steps.registry.client import RegistryClient, Version
from steps.registry.evidence import Evidence
from steps.registry.evidence_selection import Choice
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
    registry: RegistryClient, version: Version, config: Config, choice: Choice | None = None
) -> Assessment:
    """Gather a version's evidence and hold it against the policy.

    Args:
        registry: the calls to the tracking server.
        version: to look at.
        config: the composed config.
        choice: the report to go by; the default is what
            :func:`steps.registry.evidence_selection.choose` finds.

    Raises:
        RefusedError: the evidence is about other bytes, or nobody ever recorded which bytes this
            version has: not to be overruled.
    """
    choice = choice or evidence_selection.choose(registry, version, config)
    report, trouble = choice.evidence, choice.trouble
    model_id = version.model_id
    candidate = report.of(model_id, version.tags.get(DIGEST_TAG)) if report else None
    logged = registry.logged_model(model_id) if model_id else None
    recorded = {
        source: value
        for source, value in (
            ("the report", candidate.digest if candidate else None),
            ("the version's tag", version.tags.get(DIGEST_TAG)),
            ("the logged model's tag", logged.tags.get(DIGEST_TAG) if logged else None),
        )
        if value and value != UNKNOWN
    }
    command = evaluate_command(registry, version, config)
    if not recorded:
        raise RefusedError(
            f"{version.uri}: nobody recorded which bytes it has, so no evidence can be about them;"
            f" evaluate it: {command}"
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
        objections += [trouble] if config.report_uri and trouble else []
        objections += _against(report, candidate, config, command)
    return Assessment(
        version,
        report,
        candidate,
        next(iter(recorded.values())),
        tuple(redact(each) for each in objections),
    )


def evaluate_command(registry: RegistryClient, version: Version, config: Config) -> str:
    """What makes evidence about a version."""
    given = [
        f"model.registered_name={names.quoted(version.name)}",
        f"evaluate.candidates=[{','.join(map(names.quoted, candidates(registry, version)))}]",
    ]
    if (alias := config.alias or config.promotion.alias) != "champion":
        given.append(f"promotion.alias={alias}")
    return shlex.join(
        [
            "mlflow",
            "run",
            ".",
            "-e",
            "evaluate",
            "--env-manager",
            "local",
            *(word for each in given for word in ("-P", each)),
        ]
    )


def candidates(registry: RegistryClient, version: Version) -> list[str]:
    """What must be evaluated to judge a version: itself, and for an ONNX build the checkpoint that
    it was converted from.

    How far a conversion strays is measured against the transformers variant of the same snapshot:
    the version with that alias, or else the newest one. Without it, no evidence about a conversion
    could ever be enough.
    """
    if version.tags.get(VARIANT_TAG, _logged(registry, version).get(VARIANT_TAG)) != ONNX:
        return [version.uri]
    snapshot = _snapshot(registry, version)
    at = (registry.aliases(version.name) or {}).get(TRANSFORMERS)
    known = sorted(
        registry.versions(version.name),
        key=lambda each: (each.number == at, each.number),
        reverse=True,
    )
    for each in known if snapshot else ():
        variant = each.tags.get(VARIANT_TAG) or _logged(registry, each).get(VARIANT_TAG)
        if variant == TRANSFORMERS and _snapshot(registry, each) == snapshot:
            return [version.uri, each.uri]
    return [version.uri]


def _snapshot(registry: RegistryClient, version: Version) -> str | None:
    """Digest of the snapshot that a version was made of; versions of earlier days have it on their
    logged model only.
    """
    return version.tags.get(SNAPSHOT_TAG) or _logged(registry, version).get(SNAPSHOT_TAG)


def _logged(registry: RegistryClient, version: Version) -> dict[str, str]:
    logged = registry.logged_model(version.model_id) if version.model_id else None
    return dict(logged.tags) if logged else {}


def _against(
    report: Evidence, candidate: CandidateReport, config: Config, command: str
) -> list[str]:
    found: list[str] = []
    if untimely := report.untimely(config.promotion.max_evidence_age_days):
        found.append(f"its evidence {report.uri} {untimely}; evaluate it again: {command}")
    if other := report.other_gates(config.promotion.gates):
        found.append(f"it was judged by other gates ({other}); evaluate it again: {command}")
    if candidate.status != "evaluated":
        found.append(
            f"it could not be evaluated ({candidate.failure_reason}); evaluate it again: {command}"
        )
    elif not candidate.passes:
        gates = "; ".join(
            f"{gate.name}={gate.value} (limit {gate.limit}) {gate.reason}"
            for gate in candidate.failed_gates
        )
        found.append(
            f"its verdict is {candidate.verdict.decision!r}{': ' + gates if gates else ''}"
        )
    return found
