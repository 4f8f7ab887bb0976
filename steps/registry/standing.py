"""Where a version stands: its evidence, and what the policy objects to."""

from __future__ import annotations

import shlex
from dataclasses import dataclass

from steps.config.root import Config
from steps.pipeline.errors import StepError
from steps.registry import evidence as evidence_module
from steps.registry.aliases import DIGEST_TAG, EVALUATION_TAG, EVIDENCE_TAG
from steps.registry.evidence import Evidence, Judged
from steps.registry.gateway import Gateway, Version
from steps.registry.outcome import RefusedError

REPORTS_SEARCHED = 20  # newest finished evaluations of a model that are read to find one about a version


@dataclass(frozen=True)
class Standing:
    """What speaks for a version, and what against it."""

    version: Version
    evidence: Evidence | None
    judged: Judged | None
    digest: str  # of the bytes that may be promoted
    objections: tuple[str, ...]  # a person may overrule these with a reason


def look(gateway: Gateway, version: Version, config: Config) -> Standing:
    """Gather a version's evidence and hold it against the policy.

    The report is the one that ``report_uri`` names, else the one on the version's tags, else the newest finished evaluation that judged
    the same logged model.

    Raises:
        RefusedError: the evidence is about other bytes, or nobody ever recorded which bytes this version has: not to be overruled.
    """
    report, trouble = _report(gateway, version, config)
    model_id = version.model_id
    judged = report.of(model_id, version.tags.get(DIGEST_TAG)) if report else None
    logged = gateway.logged_model(model_id) if model_id else None
    recorded = {
        source: value
        for source, value in (
            ("the report", judged.digest if judged else None),
            ("the version's tag", version.tags.get(DIGEST_TAG)),
            ("the logged model's tag", logged.tags.get(DIGEST_TAG) if logged else None),
        )
        if value
    }
    command = evaluate_command(version)
    if not recorded:
        raise RefusedError(f"{version.uri}: nobody recorded which bytes it has, so no evidence can be about them; evaluate it: {command}")
    if len(set(recorded.values())) > 1:
        words = ", ".join(f"{source} says {value}" for source, value in recorded.items())
        raise RefusedError(f"{version.uri}: {words}. The evidence is about other bytes, which no reason overrules; evaluate it: {command}")
    objections: list[str] = []
    if report is None:
        objections.append(f"{trouble}; evaluate it: {command}")
    elif judged is None:
        objections.append(f"{report.uri} says nothing about {model_id}; evaluate it: {command}")
    else:
        objections += _against(report, judged, config, command)
    return Standing(version, report, judged, next(iter(recorded.values())), tuple(objections))


def evaluate_command(version: Version) -> str:
    """What makes evidence about a version."""
    return shlex.join(["mlflow", "run", ".", "-e", "evaluate", "--env-manager", "local", "-P", f"evaluate.candidates=[{version.uri}]"])


def _against(report: Evidence, judged: Judged, config: Config, command: str) -> list[str]:
    found: list[str] = []
    limit = config.promotion.max_evidence_age_days
    if (age := report.age_days()) > limit:
        found.append(f"its evidence is {age:.1f} days old, promotion.max_evidence_age_days={limit:g}; evaluate it again: {command}")
    if judged.status != "evaluated":
        found.append(f"it could not be evaluated ({judged.failure}); evaluate it again: {command}")
    elif not judged.passes:
        gates = "; ".join(
            f"{gate.name}={gate.value} (limit {gate.limit}) {gate.reason}" for gate in judged.gates if gate.passed is not True
        )
        found.append(f"its verdict is {judged.decision!r}{': ' + gates if gates else ''}")
    return found


def _report(gateway: Gateway, version: Version, config: Config) -> tuple[Evidence | None, str]:
    """The report to go by, or why there is none."""
    if config.report_uri:
        return evidence_module.read(config.report_uri), ""
    tagged = version.tags.get(EVALUATION_TAG)
    trouble = "it has no evidence"
    if tagged:
        try:
            report = evidence_module.read(tagged)
        except StepError as error:
            trouble = f"its evidence cannot be read ({error})"
        else:
            if report.digest == version.tags.get(EVIDENCE_TAG):
                newer = _newest_about(gateway, version)
                return (newer if newer and newer.created > report.created else report), ""
            trouble = f"its evidence {tagged} was changed after it was recorded"
    return _newest_about(gateway, version), trouble


def _newest_about(gateway: Gateway, version: Version) -> Evidence | None:
    for uri in gateway.finished_reports(version.name, REPORTS_SEARCHED):
        try:
            report = evidence_module.read(uri)
        except StepError:  # removed or of another schema: an older one may do
            continue
        if report.of(version.model_id, version.tags.get(DIGEST_TAG)):
            return report
    return None
