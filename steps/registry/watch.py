"""Act when somebody sets the alias ``candidate``: find or make the evidence, promote or hold by policy, tag the version with that."""

from __future__ import annotations

import dataclasses
import logging
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from steps.config.root import CONF, ROOT, Config
from steps.pipeline.errors import StepError
from steps.pipeline.redaction import redact
from steps.registry import approvals, policy, promote, standing
from steps.registry import target as targets
from steps.registry.aliases import CANDIDATE
from steps.registry.evidence import Evidence, Judged
from steps.registry.gateway import Gateway, PermissionRefusedError, ServerUnavailableError, Version
from steps.registry.journal import name_of
from steps.registry.ledger import Ledger, LostRaceError
from steps.registry.outcome import RefusedError, WithdrawnError
from steps.registry.permission import UndecidedError, WaitingError
from steps.registry.standing import Standing

log = logging.getLogger(__name__)

VERDICT_TAG = "slm.candidate"  # what became of it, in words
JUDGED_TAG = "slm.candidate.evidence"  # digest of the report it was judged on, so that it is judged once
NO_EVIDENCE = "none"
WHEN_TAG = "slm.candidate.judged_at"
# overrides that an evaluation started here gets too
PASSED_ON = ("evaluate", "promotion", "generation", "store.", "experiment=", "signing_key=")
SEEN_TAG = "slm.candidate.approvals"  # where it waits or was rejected: number of the newest statement then, so that a newer one counts
NOT_ASKED = "none"  # its verdict does not rest on approvals
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


def look_once(config: Config, gateway: Gateway, evaluate: Evaluate, *, again: Sequence[tuple[str, int]] = ()) -> list[Verdict]:
    """What :func:`looking` finds."""
    return list(looking(config, gateway, evaluate, again=again))


def looking(config: Config, gateway: Gateway, evaluate: Evaluate, *, again: Sequence[tuple[str, int]] = ()) -> Iterator[Verdict]:
    """Judge every version that the alias ``candidate`` points at and that has not been judged on its newest evidence.

    One candidate's failure is its verdict, and does not keep the others waiting; a server that does not answer ends the look, and so does
    a promoter that came first.

    Args:
        config: ``target`` names one registered model, else all are looked at; ``dry_run`` says what would happen.
        gateway: the tracking server.
        evaluate: makes evidence about a version.
        again: name and version of candidates that somebody set just now, to be judged also where the evidence is not new.
    """
    from mlflow.exceptions import MlflowException

    names = [targets.parse(config.target, config).name] if config.target else gateway.model_names()
    for name in names:
        try:
            version = _waiting(name, config, gateway, again)
            verdict = judge(version, config, gateway, evaluate) if version else None
        except (LostRaceError, ServerUnavailableError):
            raise
        except (StepError, MlflowException) as error:
            if config.target:
                raise
            log.warning("models:/%s cannot be looked at: %s", name, redact(str(error)))
            continue
        if verdict:
            log.info("%s: %s", verdict.uri, verdict.words)
            yield verdict


def _waiting(name: str, config: Config, gateway: Gateway, again: Sequence[tuple[str, int]]) -> Version | None:
    """The candidate of a model, unless its verdict stands."""
    if not config.dry_run and gateway.aliases(name_of(name)) is not None:
        Ledger(gateway, name).open()  # what a killed promotion left is finished here, also when nobody promotes again
    number = (gateway.aliases(name) or {}).get(CANDIDATE)
    version = gateway.version(name, number) if number is not None else None
    if version is None or (_judged_before(gateway, version, config) and (name, version.number) not in again):
        return None
    log.info("%s was set as @%s", version.uri, CANDIDATE)
    return version


def judge(version: Version, config: Config, gateway: Gateway, evaluate: Evaluate) -> Verdict:
    """Promote one version or hold it, and tag it with the verdict."""
    from mlflow.exceptions import MlflowException

    own = _config_for(version, config)
    where: Standing | None = None
    seen = NOT_ASKED
    try:
        where = standing.look(gateway, version, own)
        if _lacks_evidence(gateway, where, own):
            if config.dry_run:
                return Verdict(version.uri, False, "dry run: would be evaluated first", None)
            evaluate(version, own)
            where = standing.look(gateway, version, own)
        words, promoted = _decide(gateway, where, own)
    except (LostRaceError, ServerUnavailableError, PermissionRefusedError):
        raise
    except WithdrawnError as error:  # no verdict: set again, it is judged again
        return Verdict(version.uri, False, redact(str(error)), None)
    except UndecidedError as error:
        verb = "waiting for approval" if isinstance(error, WaitingError) else "held"
        words, promoted, seen = f"{verb}: {error}", False, str(error.seen)
    except (StepError, MlflowException) as error:
        words, promoted = f"held: {error}", False
    words = redact(words)[:MOST_WORDS]
    evidence = where.evidence if where else None  # what was looked at, also where something failed: it is answered once
    if not config.dry_run:
        gateway.set_version_tag(version.name, version.number, JUDGED_TAG, evidence.digest if evidence else NO_EVIDENCE)
        gateway.set_version_tag(version.name, version.number, WHEN_TAG, datetime.now(UTC).isoformat(timespec="seconds"))
        if version.tags.get(SEEN_TAG, NOT_ASKED) != seen:
            gateway.set_version_tag(version.name, version.number, SEEN_TAG, seen)
        gateway.set_version_tag(version.name, version.number, VERDICT_TAG, words)
    return Verdict(version.uri, promoted, words, evidence.uri if evidence else None)


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

    words = evaluation_words(Gateway(config.promotion.retry_seconds), version, config)
    os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])  # `python` is this one
    run = mlflow.active_run()
    experiment = run.info.experiment_id if run else None
    parameters = {"overrides": shlex.join(words)}
    try:
        mlflow.projects.run(str(ROOT), entry_point="evaluate", parameters=parameters, env_manager="local", experiment_id=experiment)
    except ExecutionException as error:
        raise EvaluationFailedError(f"its evaluation failed ({error}); what it said is in the logs/ of its run") from error


def evaluation_words(gateway: Gateway, version: Version, config: Config) -> list[str]:
    """The overrides under which ``evaluate`` judges one version beside the champion."""
    uris = ",".join(f"'{uri}'" for uri in standing.candidates(gateway, version))
    return [
        f"model={_model_of(version.name)}",
        *_passed_on(),
        f"model.registered_name={version.name}",
        f"promotion.alias={config.promotion.alias}",
        f"evaluate.candidates=[{uris}]",
    ]


def _passed_on() -> list[str]:
    """The overrides that `watch` was given and that an evaluation understands as well."""
    from hydra.core.hydra_config import HydraConfig

    given = list(HydraConfig.get().overrides.task) if HydraConfig.initialized() else []
    return [word for word in given if word.startswith(PASSED_ON) and not word.startswith("promotion.watch")]


def _decide(gateway: Gateway, where: Standing, config: Config) -> tuple[str, bool]:
    version = where.version
    alias = config.promotion.alias
    if where.objections:
        return f"held: {'; '.join(where.objections)}", False
    assert where.evidence is not None and where.judged is not None, "a version without evidence has an objection"
    aliases = gateway.aliases(version.name) or {}
    if aliases.get(alias) == version.number:
        return f"it is @{alias} already", False
    champion = _champion(gateway, where.evidence, version.name, aliases.get(alias))
    if champion is None and alias in aliases:
        report = where.evidence
        return f"held: its strongest evidence, {report.uri} ({report.size}), did not see @{alias}; evaluate both with as many items", False
    if champion is not None:
        ranking = policy.rank([where.judged, champion], config.promotion.weights)
        if ranking.winner is not None and ranking.winner.judged is champion:
            scores = ", ".join(f"{each.judged.variant} {each.utility:+.3f}" for each in ranking.ranked)
            return f"held: @{alias} (version {aliases[alias]}) is better by profile {config.promotion.profile}: {scores}", False
    if config.dry_run:
        return f"dry run: would be promoted to @{alias}", False
    done = promote.promote(config, gateway=gateway, beaten={alias: aliases.get(alias)}, asked=CANDIDATE)
    return f"promoted to @{alias}, entry {done.entry} of {version.name}.history", True


def _champion(gateway: Gateway, report: Evidence, name: str, number: int | None) -> Judged | None:
    version = gateway.version(name, number) if number is not None else None
    return report.of(version.model_id, version.tags.get("slm.digest")) if version else None


def _lacks_evidence(gateway: Gateway, where: Standing, config: Config) -> bool:
    """Whether there is no report, too old a one, one by other gates, or one that did not see the champion of today."""
    if where.evidence is None or where.judged is None or where.evidence.untimely(config.promotion.max_evidence_age_days):
        return True
    if where.evidence.other_gates(config.promotion.gates):
        return True
    number = (gateway.aliases(where.version.name) or {}).get(config.promotion.alias)
    if number is None or number == where.version.number:
        return False
    return _champion(gateway, where.evidence, where.version.name, number) is None


def _judged_before(gateway: Gateway, version: Version, config: Config) -> bool:
    """Whether its verdict stands: it was given on the newest evidence there is, and on the newest approvals where those decided."""
    tagged, seen = version.tags.get(JUDGED_TAG), version.tags.get(SEEN_TAG, NOT_ASKED)
    if tagged is None or VERDICT_TAG not in version.tags:
        return False
    if seen != NOT_ASKED and seen != str(approvals.last_number(gateway, version.name)):
        return False
    try:
        where = standing.look(gateway, version, _config_for(version, config))
    except RefusedError:
        return True
    return (where.evidence.digest if where.evidence else NO_EVIDENCE) == tagged


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
    """The model config whose registered name this is; the version is judged by its URI, so any other would do as well."""
    import yaml

    for path in sorted(Path(CONF, "model").glob("*.yaml")):
        if (yaml.safe_load(path.read_text(encoding="utf-8")) or {}).get("registered_name") == name:
            return path.stem
    return "smollm2_135m"
