"""One look of `watch` over the registry: in bulk, and closely only at models of which something
changed.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterator, Sequence

from steps.config import names
from steps.config.notifications import PROPOSED
from steps.config.root import Config
from steps.core.errors import ConfigError, StepError
from steps.core.redaction import redact
from steps.registry import survey, waiting
from steps.registry import target as targets
from steps.registry.alias_store import AliasStore, LostRaceError
from steps.registry.aliases import CANDIDATE
from steps.registry.client import RegistryClient, ServerUnavailableError, Version
from steps.registry.notifications import notify, tell_observed
from steps.registry.retries import first_line
from steps.registry.survey import Facts
from steps.registry.waiting import SEEN_TAG, Memory
from steps.registry.watch import Evaluate, Verdict, decide, judged_before

log = logging.getLogger(__name__)

# times in a row that another promoter may come first, until the model waits like one that failed
LOST_RACES = 5


def look_once(
    config: Config,
    registry: RegistryClient,
    evaluate: Evaluate,
    *,
    again: Sequence[tuple[str, int]] = (),
    memory: Memory | None = None,
) -> list[Verdict]:
    """What :func:`looking` finds."""
    return list(looking(config, registry, evaluate, again=again, memory=memory))


def looking(
    config: Config,
    registry: RegistryClient,
    evaluate: Evaluate,
    *,
    again: Sequence[tuple[str, int]] = (),
    memory: Memory | None = None,
) -> Iterator[Verdict]:
    """Judge every version that the alias ``candidate`` points at and that has not been judged on
    its newest evidence.

    The registry is searched in bulk, and only a model of which something changed is looked at
    closely. One model's failure keeps no other
    waiting: it is reported once, and that model is tried again when something about it changes, or
    after a while that doubles each
    time. A server that does not answer ends the look.

    Args:
        config: ``target`` names one registered model, else all are looked at; ``dry_run`` says what
            would happen.
        registry: the tracking server.
        evaluate: makes evidence about a version.
        again: name and version of candidates that somebody set just now, to be judged also where
            the evidence is not new.
        memory: of earlier looks by this process.

    Raises:
        ServerUnavailableError: the tracking server does not answer.
        StepError: the one model that ``target`` names cannot be looked at, and this is the only
            look.
    """
    only = targets.parse(config.target, config).name if config.target else None
    memory = memory or Memory()
    found = survey.take(registry, only)
    judged = [
        at
        for facts in found
        if facts.candidate and (at := waiting.judged_ms(facts.candidate)) is not None
    ]
    reports = survey.evaluations(registry, min(judged) - survey.MARGIN_MS, only) if judged else {}
    for bare in found:
        facts = dataclasses.replace(bare, reports=reports.get(bare.name, {}))
        state = facts.state
        wished = facts.candidate is not None and (facts.name, facts.candidate.number) in again
        if not wished and not memory.due(facts.name, state):
            continue
        try:
            verdict = _look_at(facts, config, registry, evaluate, wished=wished, memory=memory)
        except ServerUnavailableError as error:
            if not _answers(registry):
                raise
            _failed(error, facts, state, config, memory)
        except Exception as error:  # noqa: BLE001  (whatever one model's records, tags and artifacts raise, the others are looked at)
            _failed(error, facts, state, config, memory)
        else:
            memory.passed(facts.name)
            if verdict:
                log.info("%s: %s", verdict.uri, verdict.words)
                yield verdict


def _failed(error: Exception, facts: Facts, state: str, config: Config, memory: Memory) -> None:
    if config.target and config.promotion.watch.once:
        if isinstance(error, StepError | ConfigError):
            raise error
        raise StepError(f"models:/{facts.name} cannot be looked at: {_words(error)}") from error
    words = _words(error)
    if memory.failed(facts.name, state, words):
        log.warning(
            "models:/%s cannot be looked at: %s; it is tried again when it changes, and now and"
            " then",
            facts.name,
            words,
        )


def _words(error: BaseException) -> str:
    kind = "" if isinstance(error, StepError | ConfigError) else f"{type(error).__name__}: "
    return redact(kind + first_line(error))


def _answers(registry: RegistryClient) -> bool:
    """Whether the tracking server answers at all: if so, what could not be had is one model's
    trouble.
    """
    try:
        RegistryClient(0.0, registry.client).repeated(
            "asking the server", lambda: registry.client.search_registered_models(max_results=1)
        )
    except StepError:
        return False
    return True


def _look_at(
    facts: Facts,
    config: Config,
    registry: RegistryClient,
    evaluate: Evaluate,
    *,
    wished: bool,
    memory: Memory,
) -> Verdict | None:
    """Judge the candidate of one model, if it has one whose verdict does not stand."""
    names.check("a registered model's name", facts.name)
    _tell_observed(facts, config, memory)
    for attempt in range(LOST_RACES):
        try:
            if not config.dry_run and (attempt or not facts.is_settled()):
                # what a killed promotion left is finished here, also where no further promotion
                # follows
                AliasStore(registry, facts.name).open()
            version = facts.candidate
            if version is None or (not wished and _stands(version, facts, config, registry)):
                return None
            log.info("%s was set as @%s", version.uri, CANDIDATE)
            notify(
                config, PROPOSED, facts.name, version=version.number, reason=f"set as @{CANDIDATE}"
            )
            return decide(version, config, registry, evaluate, facts)
        except LostRaceError as error:
            if attempt == LOST_RACES - 1:
                raise
            log.info("%s; looking again", error)
            facts = next(iter(survey.take(registry, facts.name)), facts)
    return None


def _tell_observed(facts: Facts, config: Config, memory: Memory) -> None:
    """Notify of moves by other clients that the journal took note of since the last look."""
    if facts.history is None:
        return
    before = memory.unseen(facts.name, max((each.number for each in facts.history), default=0))
    if before is not None and config.notifications.url:
        tell_observed(
            config, facts.name, [entry for entry in facts.entries() if entry.number > before]
        )


def _stands(version: Version, facts: Facts, config: Config, registry: RegistryClient) -> bool:
    """Whether a candidate's verdict stands: by the survey, or else by a close look at its
    evidence.
    """
    if waiting.stands(version, facts):
        return True
    if waiting.is_another(version, facts) or not judged_before(registry, version, config):
        return False
    if not config.dry_run and (at := waiting.judged_ms(version)) is not None:
        registry.set_version_tag(
            version.name, version.number, SEEN_TAG, waiting.seen(version, facts, facts.reports, at)
        )
    return True
