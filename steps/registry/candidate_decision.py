"""What becomes of a version that was set as ``candidate``: promoted or held, and tagged so."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from mlflow.exceptions import MlflowException

from steps.config.notifications import HELD, WAITING
from steps.config.promotion import PromotionConfig
from steps.config.root import Config
from steps.core import tags
from steps.core.errors import ConfigError, StepError
from steps.core.redaction import redact
from steps.evaluation.ranking import advantages, rank, speed_in_doubt
from steps.evaluation.report import CandidateReport
from steps.registry import eligibility, entities, promote, survey, verdict_memory
from steps.registry.alias_store import LostRaceError
from steps.registry.aliases import CANDIDATE
from steps.registry.client import PermissionRefusedError, RegistryClient, ServerUnavailableError
from steps.registry.eligibility import Assessment
from steps.registry.evidence import Evidence
from steps.registry.model_version import Version
from steps.registry.notifications import notify, tell
from steps.registry.permission import WaitingError
from steps.registry.result import Promotion, RefusedError, WithdrawnError
from steps.registry.survey import Facts
from steps.registry.target import Target
from steps.registry.verdict_memory import CANDIDATE_TAG, JUDGED_TAG, SEEN_TAG, WHEN_TAG

log = logging.getLogger(__name__)

NO_EVIDENCE = "none"
MOST_WORDS = 2000  # characters of a verdict; the whole of it stands in the log
# makes evidence about a version for an alias
Evaluate = Callable[[Version, str], None]


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
    version: Version,
    config: Config,
    registry: RegistryClient,
    evaluate: Evaluate,
    facts: Facts,
    overrides: Sequence[str] = (),
) -> Verdict:
    """Promote one version or hold it, and tag it with the verdict.

    Args:
        version: the candidate.
        config: of `watch`.
        registry: the tracking server.
        evaluate: makes evidence about a version.
        facts: what the survey found of its model.
        overrides: of `watch`.
    """
    policy = config.promotion
    assessment: Assessment | None = None
    done: Promotion | None = None
    event = HELD
    now = datetime.now(UTC)
    reports: dict[str, int] = {}
    try:
        usable = entities.usable(registry, version)
        # a copy: from here on, a search finds it
        if version.model_id is None and usable.model_id is not None and not config.dry_run:
            registry.set_version_tag(version.name, version.number, tags.MODEL_ID, usable.model_id)
        assessment = eligibility.assess(registry, usable, policy)
        if _lacks_evidence(registry, assessment, policy):
            if config.dry_run:
                return Verdict(version.uri, False, "dry run: would be evaluated first", None)
            evaluate(usable, policy.alias)
            now = datetime.now(UTC)
            reports = _reports(registry, version.name, now)
            assessment = eligibility.assess(registry, usable, policy)
        else:
            reports = (
                dict(facts.reports)
                if verdict_memory.judged_ms(version) is not None
                else _reports(registry, version.name, now)
            )
        words, done = _decide(registry, assessment, config, overrides)
    except (LostRaceError, ServerUnavailableError, PermissionRefusedError):
        raise
    except WithdrawnError as error:  # no verdict: set again, it is decided on again
        return Verdict(version.uri, False, redact(str(error)), None)
    except WaitingError as error:
        words, event = f"waiting for approval: {error}", WAITING
    except (StepError, ConfigError, MlflowException) as error:
        words = f"held: {error}"
    words = redact(words)[:MOST_WORDS]
    # what the decision went by, also where something failed: it is answered once
    evidence = assessment.evidence if assessment else None
    uri = evidence.uri if evidence else None
    if config.dry_run:
        return Verdict(version.uri, done is not None, words, uri)
    for tag, value in (
        (JUDGED_TAG, evidence.digest if evidence else NO_EVIDENCE),
        (WHEN_TAG, now.isoformat(timespec="seconds")),
        (CANDIDATE_TAG, words),
    ):
        registry.set_version_tag(version.name, version.number, tag, value)
    _remember(registry, version, facts, reports)
    if done is not None:
        tell(config, done)
    elif event == WAITING or words.startswith("held"):
        notify(config, event, version.name, version=version.number, reason=words, evidence=uri)
    return Verdict(version.uri, done is not None, words, uri)


def decided_before(registry: RegistryClient, version: Version, policy: PromotionConfig) -> bool:
    """Whether its verdict was given on the newest evidence there is."""
    tagged = version.tags.get(JUDGED_TAG)
    if tagged is None or CANDIDATE_TAG not in version.tags:
        return False
    try:
        evidence = eligibility.assess(registry, entities.usable(registry, version), policy).evidence
    except RefusedError:
        return True
    return (evidence.digest if evidence else NO_EVIDENCE) == tagged


def _reports(registry: RegistryClient, name: str, now: datetime) -> dict[str, int]:
    since_ms = int(now.timestamp() * 1000) - 2 * survey.MARGIN_MS
    return survey.evaluations(registry, since_ms, name).get(name, {})


def _remember(
    registry: RegistryClient, version: Version, facts: Facts, reports: dict[str, int]
) -> None:
    """Tag a version with what was known when it was decided on, for the next poll to compare."""
    tagged = registry.version(version.name, version.number)
    if tagged is not None and (at := verdict_memory.judged_ms(tagged)) is not None:
        registry.set_version_tag(
            version.name, version.number, SEEN_TAG, verdict_memory.seen(tagged, facts, reports, at)
        )


def _decide(
    registry: RegistryClient, assessment: Assessment, config: Config, overrides: Sequence[str]
) -> tuple[str, Promotion | None]:
    version, policy = assessment.version, config.promotion
    alias = policy.alias
    if assessment.objections:
        return f"held: {'; '.join(assessment.objections)}", None
    report, candidate = assessment.evidence, assessment.candidate
    assert report is not None and candidate is not None, (
        "a version without evidence has an objection"
    )
    aliases = registry.aliases(version.name) or {}
    if aliases.get(alias) == version.number:
        return f"it is @{alias} already", None
    champion = _champion(registry, report, version.name, aliases.get(alias))
    if champion is None and alias in aliases:
        words = (
            f"held: its strongest evidence, {report.uri} ({report.size}), did not see @{alias};"
            " evaluate both with as many items"
        )
        return words, None
    if champion is not None:
        ranking = rank([candidate, champion], policy.weights)
        if ranking.winner is not None and ranking.winner.candidate is champion:
            words = (
                f"held: @{alias} (version {aliases[alias]}) is better by profile"
                f" {policy.profile}: {advantages(*ranking.ranked)}"
            )
            return words, None
        if report.report.busy and speed_in_doubt([candidate, champion], policy.weights):
            words = (
                f"held: profile {policy.profile} is undecided, as {report.report.busy}"
                " while speed was measured; evaluate both on a quiet machine"
            )
            return words, None
    if config.dry_run:
        return f"dry run: would be promoted to @{alias}", None
    done = promote.promote(
        registry,
        Target(version.name, version.number),
        policy,
        config.model,
        alias=alias,
        reason=f"set as @{CANDIDATE}, passed its gates and the policy",
        overrides=overrides,
        beaten={alias: aliases.get(alias)},
        asked=CANDIDATE,
    )
    return f"promoted to @{alias}, entry {done.entry} of {version.name}.history", done


def _champion(
    registry: RegistryClient, report: Evidence, name: str, number: int | None
) -> CandidateReport | None:
    version = registry.version(name, number) if number is not None else None
    return report.of(version.model_id, version.tags.get(tags.DIGEST)) if version else None


def _lacks_evidence(
    registry: RegistryClient, assessment: Assessment, policy: PromotionConfig
) -> bool:
    """Whether its report is missing, too old, by other gates, or did not see today's champion."""
    report, version = assessment.evidence, assessment.version
    if report is None or assessment.candidate is None:
        return True
    if report.untimely(policy.max_evidence_age_days) or report.other_gates(policy.gates):
        return True
    number = (registry.aliases(version.name) or {}).get(policy.alias)
    if number is None or number == version.number:
        return False
    return _champion(registry, report, version.name, number) is None
