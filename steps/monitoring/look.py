"""One look at a served version: its evidence, its sampled requests, the recorded prompts."""

import logging
import tempfile
from dataclasses import replace
from pathlib import Path

import mlflow
from mlflow.exceptions import MlflowException

from steps.config.root import Config
from steps.core import tags
from steps.core.errors import ConfigError, StepError
from steps.core.redaction import redact
from steps.evaluation.report import CandidateReport, Report
from steps.monitoring import baseline, figures, live, recorded, table
from steps.monitoring.baseline import Baseline
from steps.monitoring.consequences import follow
from steps.monitoring.result import ARTIFACT, PAGE, EvidenceUsed, Monitoring
from steps.registry import eligibility, evidence_selection, notifications, target
from steps.registry.client import RegistryClient
from steps.registry.evidence import Evidence
from steps.registry.model_version import Version
from steps.registry.retries import first_line
from steps.registry.target import Target

log = logging.getLogger(__name__)


def look(config: Config, registry: RegistryClient) -> Monitoring:
    """Hold a version's live figures against its evidence, and do what follows.

    The result is on the active run before anything follows, and again afterwards.

    Args:
        config: ``target``, ``monitor``, ``serve.trace_experiment``, ``promotion``.
        registry: the calls to the tracking server.

    Raises:
        ConfigError: the target, or with ``monitor.rollback`` an alias that no rollback moves.
        StepError: there is no such version, or no evidence about its bytes that counts.
    """
    meant = _target(config)
    notifications.check(config.notifications)
    version = target.version_of(registry, meant)
    assert version is not None, "a target with an alias or a version names one"
    evidence, digest = _evidence(config, registry, version)
    report, candidate = _whole(evidence, version)
    known = _baseline(evidence, report, candidate)
    settings = config.monitor
    period = live.read(
        registry,
        version,
        digest,
        experiment=config.serve.trace_experiment,
        hours=settings.period_hours,
        most=settings.max_requests,
    )
    asked = recorded.ask(settings, version, digest, report, candidate, period.processors)
    again = asked.figure(settings)
    found = Monitoring(
        name=version.name,
        version=version.number,
        alias=meant.alias,
        model_id=version.model_id,
        digest=digest,
        created=period.until.isoformat(timespec="seconds"),
        since=period.since.isoformat(timespec="seconds"),
        requests=len(period.answers),
        experiment=config.serve.trace_experiment,
        processors=period.processors,
        evidence=EvidenceUsed(
            evidence.uri, evidence.digest, report.created, known.items, known.processor
        ),
        figures=(
            *figures.measure(period.answers, known, settings),
            *([again] if again is not None else []),
        ),
        recorded=asked,
        confidence=settings.confidence,
        notes=period.notes,
        dry_run=config.dry_run,
    )
    keep(found)
    _measure(found, registry)
    found = replace(found, consequences=follow(found, version, config, registry))
    keep(found)
    return found


def _target(config: Config) -> Target:
    """The version that is meant, by an alias unless it is named by number.

    Raises:
        ConfigError: with ``monitor.rollback``, an alias that no rollback moves.
    """
    meant = target.parse(config.target, config)
    if meant.version is None and meant.alias is None:
        meant = replace(meant, alias=config.promotion.alias)
    if config.monitor.rollback:
        if meant.version is not None:
            raise ConfigError(
                "monitor.rollback",
                True,
                f"a target with an alias, not {meant.uri}",
                f"pass target=models:/{meant.name}@{config.promotion.alias}, or"
                " monitor.rollback=false",
            )
        target.to_roll_back(config)
    return meant


def _evidence(config: Config, registry: RegistryClient, version: Version) -> tuple[Evidence, str]:
    """The report about a version's bytes that counts, and the digest of these bytes.

    Its age and its gates do not matter here: it says how the version did.

    Raises:
        StepError: there is none, or it is about other bytes.
    """
    policy = config.promotion
    choice = evidence_selection.choose(registry, version, policy, config.report_uri)
    command = eligibility.evaluate_command(registry, version, policy.alias)
    if choice.evidence is None or (config.report_uri and choice.trouble):
        raise StepError(
            f"{version.uri}: there is no evidence to hold it against"
            f" ({redact(choice.trouble or 'no report about it counts')}); evaluate it: {command}"
        )
    assessment = eligibility.assess(registry, version, policy, choice=choice)
    if assessment.candidate is None or assessment.candidate.status != "evaluated":
        raise StepError(
            f"{version.uri}: its evidence {choice.evidence.uri} holds no figures of it; evaluate"
            f" it: {command}"
        )
    return choice.evidence, assessment.digest


def _whole(evidence: Evidence, version: Version) -> tuple[Report, CandidateReport]:
    """The report with its answers and timings, which a promotion does without."""
    report = Report.from_json(evidence.text)
    whole = replace(evidence, report=report).of(version.model_id, version.tags.get(tags.DIGEST))
    assert whole is not None, "the same report was read before"
    return report, whole


def _baseline(evidence: Evidence, report: Report, candidate: CandidateReport) -> Baseline:
    try:
        return baseline.of(report, candidate)
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise StepError(
            f"{evidence.uri}: its timings or answers cannot be read ({type(error).__name__}:"
            f" {redact(first_line(error))}); evaluate again: `mlflow run . -e evaluate"
            " --env-manager local`"
        ) from error


def keep(found: Monitoring) -> None:
    """Put ``monitor.json`` and ``monitor.md`` on the active run."""
    with tempfile.TemporaryDirectory() as folder:
        found.write(Path(folder) / ARTIFACT)
        (Path(folder) / PAGE).write_text(table.markdown(found), "utf-8")
        mlflow.log_artifacts(folder)


def _measure(found: Monitoring, registry: RegistryClient) -> None:
    """Put the figures on the run, and on the logged model where it is still there."""
    logged = registry.logged_model(found.model_id)
    try:
        mlflow.log_metrics(found.metrics, model_id=found.model_id if logged else None)
    except MlflowException as error:
        log.warning("the figures could not be logged (%s)", redact(first_line(error)))
