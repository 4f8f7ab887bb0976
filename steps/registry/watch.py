"""Act when somebody sets the alias ``candidate``: find or make the evidence, promote or hold by
policy, tag the version with that.
"""

from __future__ import annotations

import dataclasses
import logging
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from steps.config import names
from steps.config.notifications import HELD, WAITING
from steps.config.root import CONF, ROOT, Config
from steps.core.errors import ConfigError, StepError
from steps.core.redaction import redact
from steps.evaluation.report import CandidateReport
from steps.registry import eligibility, entities, policy, promote, survey, waiting
from steps.registry.alias_store import LostRaceError
from steps.registry.aliases import CANDIDATE, MODEL_ID_TAG
from steps.registry.client import (
    PermissionRefusedError,
    RegistryClient,
    ServerUnavailableError,
    Version,
)
from steps.registry.eligibility import Assessment
from steps.registry.evidence import Evidence
from steps.registry.notifications import notify, tell
from steps.registry.permission import WaitingError
from steps.registry.result import Promotion, RefusedError, WithdrawnError
from steps.registry.survey import Facts
from steps.registry.waiting import CANDIDATE_TAG, JUDGED_TAG, SEEN_TAG, WHEN_TAG

log = logging.getLogger(__name__)

NO_EVIDENCE = "none"
# overrides that an evaluation started here gets too
PASSED_ON = ("evaluate", "promotion", "generation", "store.", "experiment=", "signing_key=")
MOST_WORDS = 2000  # characters of a verdict; the whole of it stands in the log
Evaluate = Callable[[Version, Config], None]


@dataclass(frozen=True)
class Verdict:
    """What became of one candidate."""

    uri: str
    promoted: bool
    words: str
    evidence: str | None  # report URI

    def to_json(self) -> dict[str, Any]:
        return dict(vars(self))


def decide(
    version: Version, config: Config, registry: RegistryClient, evaluate: Evaluate, facts: Facts
) -> Verdict:
    """Promote one version or hold it, and tag it with the verdict.

    Args:
        version: the candidate.
        config: of the watch.
        registry: the tracking server.
        evaluate: makes evidence about a version.
        facts: what the survey found of its model.
    """
    from mlflow.exceptions import MlflowException

    own = _config_for(version, config)
    assessment: Assessment | None = None
    done: Promotion | None = None
    event = HELD
    now = datetime.now(UTC)
    reports: dict[str, int] = {}
    try:
        usable = entities.usable(registry, version)
        # a copy: from here on, a search finds it
        if version.model_id is None and usable.model_id is not None and not config.dry_run:
            registry.set_version_tag(version.name, version.number, MODEL_ID_TAG, usable.model_id)
        assessment = eligibility.assess(registry, usable, own)
        if _lacks_evidence(registry, assessment, own):
            if config.dry_run:
                return Verdict(version.uri, False, "dry run: would be evaluated first", None)
            evaluate(usable, own)
            now = datetime.now(UTC)
            reports = _reports(registry, version.name, now)
            assessment = eligibility.assess(registry, usable, own)
        else:
            reports = (
                dict(facts.reports)
                if waiting.judged_ms(version) is not None
                else _reports(registry, version.name, now)
            )
        words, done = _decide(registry, assessment, own)
    except (LostRaceError, ServerUnavailableError, PermissionRefusedError):
        raise
    except WithdrawnError as error:  # no verdict: set again, it is judged again
        return Verdict(version.uri, False, redact(str(error)), None)
    except WaitingError as error:
        words, event = f"waiting for approval: {error}", WAITING
    except (StepError, ConfigError, MlflowException) as error:
        words = f"held: {error}"
    words = redact(words)[:MOST_WORDS]
    # what was looked at, also where something failed: it is answered once
    evidence = assessment.evidence if assessment else None
    if not config.dry_run:
        registry.set_version_tag(
            version.name, version.number, JUDGED_TAG, evidence.digest if evidence else NO_EVIDENCE
        )
        registry.set_version_tag(
            version.name, version.number, WHEN_TAG, now.isoformat(timespec="seconds")
        )
        registry.set_version_tag(version.name, version.number, CANDIDATE_TAG, words)
        _remember(registry, version, facts, reports)
        if done is not None:
            tell(config, done)
        elif event == WAITING or words.startswith("held"):
            notify(
                config,
                event,
                version.name,
                version=version.number,
                reason=words,
                evidence=evidence.uri if evidence else None,
            )
    return Verdict(version.uri, done is not None, words, evidence.uri if evidence else None)


def _reports(registry: RegistryClient, name: str, now: datetime) -> dict[str, int]:
    return survey.evaluations(
        registry, int(now.timestamp() * 1000) - 2 * survey.MARGIN_MS, name
    ).get(name, {})


def _remember(
    registry: RegistryClient, version: Version, facts: Facts, reports: dict[str, int]
) -> None:
    """Tag a version with what was known when it was judged, so that the next look needs no call to
    see that nothing changed.
    """
    tagged = registry.version(version.name, version.number)
    if tagged is not None and (at := waiting.judged_ms(tagged)) is not None:
        registry.set_version_tag(
            version.name, version.number, SEEN_TAG, waiting.seen(tagged, facts, reports, at)
        )


class EvaluationFailedError(StepError):
    """The evaluation of a candidate did not end well."""


def run_evaluation(version: Version, config: Config) -> None:
    """Run the step ``evaluate`` on one version, beside the champion.

    Raises:
        EvaluationFailedError: it failed.
    """
    import shlex

    import mlflow
    from mlflow.exceptions import ExecutionException

    words = evaluation_words(RegistryClient(config.promotion.retry_seconds), version, config)
    # `python` is this one
    os.environ["PATH"] = os.pathsep.join(
        [str(Path(sys.executable).parent), os.environ.get("PATH", "")]
    )
    run = mlflow.active_run()
    experiment = run.info.experiment_id if run else None
    parameters = {"overrides": shlex.join(words)}
    try:
        mlflow.projects.run(
            str(ROOT),
            entry_point="evaluate",
            parameters=parameters,
            env_manager="local",
            experiment_id=experiment,
        )
    except ExecutionException as error:
        raise EvaluationFailedError(
            f"its evaluation failed ({error}); what it said is in the logs/ of its run"
        ) from error


def evaluation_words(registry: RegistryClient, version: Version, config: Config) -> list[str]:
    """The overrides under which ``evaluate`` judges one version beside the champion."""
    uris = ",".join(f"'{uri}'" for uri in eligibility.candidates(registry, version))
    return [
        f"model={_model_of(version.name)}",
        *_passed_on(),
        f"model.registered_name={names.quoted(version.name)}",
        f"promotion.alias={config.promotion.alias}",
        f"evaluate.candidates=[{uris}]",
    ]


def _passed_on() -> list[str]:
    """The overrides that `watch` was given and that an evaluation understands as well."""
    from hydra.core.hydra_config import HydraConfig

    given = list(HydraConfig.get().overrides.task) if HydraConfig.initialized() else []
    return [
        word
        for word in given
        if word.startswith(PASSED_ON) and not word.startswith("promotion.watch")
    ]


def _decide(
    registry: RegistryClient, assessment: Assessment, config: Config
) -> tuple[str, Promotion | None]:
    version = assessment.version
    alias = config.promotion.alias
    if assessment.objections:
        return f"held: {'; '.join(assessment.objections)}", None
    assert assessment.evidence is not None and assessment.candidate is not None, (
        "a version without evidence has an objection"
    )
    aliases = registry.aliases(version.name) or {}
    if aliases.get(alias) == version.number:
        return f"it is @{alias} already", None
    champion = _champion(registry, assessment.evidence, version.name, aliases.get(alias))
    if champion is None and alias in aliases:
        report = assessment.evidence
        return (
            (
                f"held: its strongest evidence, {report.uri} ({report.size}), did not see @{alias};"
                " evaluate both with as many items"
            ),
            None,
        )
    if champion is not None:
        ranking = policy.rank([assessment.candidate, champion], config.promotion.weights)
        if ranking.winner is not None and ranking.winner.candidate is champion:
            scores = ", ".join(
                f"{each.candidate.variant} {each.utility:+.3f}" for each in ranking.ranked
            )
            return (
                (
                    f"held: @{alias} (version {aliases[alias]}) is better by profile"
                    f" {config.promotion.profile}: {scores}"
                ),
                None,
            )
    if config.dry_run:
        return f"dry run: would be promoted to @{alias}", None
    done = promote.promote(
        config, registry=registry, beaten={alias: aliases.get(alias)}, asked=CANDIDATE
    )
    return f"promoted to @{alias}, entry {done.entry} of {version.name}.history", done


def _champion(
    registry: RegistryClient, report: Evidence, name: str, number: int | None
) -> CandidateReport | None:
    version = registry.version(name, number) if number is not None else None
    return report.of(version.model_id, version.tags.get("slm.digest")) if version else None


def _lacks_evidence(registry: RegistryClient, assessment: Assessment, config: Config) -> bool:
    """Whether there is no report, too old a one, one by other gates, or one that did not see the
    champion of today.
    """
    if (
        assessment.evidence is None
        or assessment.candidate is None
        or assessment.evidence.untimely(config.promotion.max_evidence_age_days)
    ):
        return True
    if assessment.evidence.other_gates(config.promotion.gates):
        return True
    number = (registry.aliases(assessment.version.name) or {}).get(config.promotion.alias)
    if number is None or number == assessment.version.number:
        return False
    return _champion(registry, assessment.evidence, assessment.version.name, number) is None


def judged_before(registry: RegistryClient, version: Version, config: Config) -> bool:
    """Whether its verdict was given on the newest evidence there is."""
    tagged = version.tags.get(JUDGED_TAG)
    if tagged is None or CANDIDATE_TAG not in version.tags:
        return False
    try:
        assessment = eligibility.assess(
            registry, entities.usable(registry, version), _config_for(version, config)
        )
    except RefusedError:
        return True
    return (assessment.evidence.digest if assessment.evidence else NO_EVIDENCE) == tagged


def _config_for(version: Version, config: Config) -> Config:
    return dataclasses.replace(
        config,
        target=version.uri,
        alias=None,
        force=False,
        report_uri=None,
        reason=f"set as @{CANDIDATE}, passed its gates and the policy",
    )


def _model_of(name: str) -> str:
    """The model config whose registered name this is; the version is judged by its URI, so any
    other would do as well.
    """
    import yaml

    for path in sorted(Path(CONF, "model").glob("*.yaml")):
        if (yaml.safe_load(path.read_text(encoding="utf-8")) or {}).get("registered_name") == name:
            return path.stem
    return "smollm2_135m"
