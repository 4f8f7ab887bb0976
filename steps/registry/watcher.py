"""Poll the registry for candidates, by the clock or when a webhook says that one was set.

A poll searches the registry in bulk, and reads closely only the models of which something changed.
"""

from __future__ import annotations

import logging
import os
import queue
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace

from steps.config import names
from steps.config.notifications import PROPOSED
from steps.config.root import Config
from steps.core.errors import ConfigError, StepError
from steps.core.redaction import redact
from steps.registry import candidate_decision, survey, verdict_memory
from steps.registry import target as targets
from steps.registry.alias_store import AliasStore, LostRaceError
from steps.registry.aliases import CANDIDATE
from steps.registry.candidate_decision import Evaluate, Verdict
from steps.registry.client import RegistryClient, ServerUnavailableError
from steps.registry.model_version import Version
from steps.registry.notifications import check, notify, tell_observed
from steps.registry.retries import first_line
from steps.registry.survey import Facts
from steps.registry.verdict_memory import SEEN_TAG, Memory
from steps.registry.webhook import AliasSet, Receiver

log = logging.getLogger(__name__)

# times in a row that another promoter may come first, until the model waits like one that failed
LOST_RACES = 5


class Watcher:
    """Decides on every version that the alias ``candidate`` points at, once for each new evidence.

    Args:
        config: ``target`` names one registered model, else all are watched; ``dry_run`` says what
            would happen; ``promotion``, ``model`` and ``notifications`` count.
        registry: the tracking server.
        evaluate: makes evidence about a version.
        overrides: of this run.
        memory: of earlier polls by this process.
    """

    def __init__(
        self,
        config: Config,
        registry: RegistryClient,
        evaluate: Evaluate,
        *,
        overrides: Sequence[str] = (),
        memory: Memory | None = None,
    ) -> None:
        self.config, self.registry, self.evaluate = config, registry, evaluate
        self.overrides, self.memory = overrides, memory or Memory()

    def run(self, keep: Callable[[list[Verdict]], None] = lambda _: None) -> list[Verdict]:
        """Poll at once, then after each interval and each webhook, until the process is ended or,
        with ``promotion.watch.once``, once.

        Args:
            keep: gets all verdicts so far after each new one.

        Raises:
            ConfigError: a webhook is to be received or told and its secret is not in the
                environment.
        """
        settings = self.config.promotion.watch
        inbox: queue.Queue[AliasSet] = queue.Queue()
        verdicts: list[Verdict] = []
        check(self.config.notifications)
        with ExitStack() as stack:
            if settings.webhook_port is not None and not settings.once:
                secret = os.environ.get(settings.secret_env, "")
                if not secret:
                    raise ConfigError(
                        "promotion.watch.secret_env",
                        settings.secret_env,
                        "an environment variable that holds the webhook's secret",
                        "export it",
                    )
                receiver = stack.enter_context(
                    Receiver(settings.webhook_host, settings.webhook_port, secret, inbox.put)
                )
                log.info(
                    "listening for webhooks on http://%s:%d", settings.webhook_host, receiver.port
                )
            again: set[tuple[str, int]] = set()
            while True:
                try:
                    for verdict in self.poll(again):
                        verdicts.append(verdict)
                        keep(verdicts)
                    again = set()
                except ServerUnavailableError as error:
                    if settings.once:
                        raise
                    log.warning("%s; waiting for it", error)
                if settings.once:
                    return verdicts
                again |= _wait(inbox, settings.interval)

    def poll(self, again: Collection[tuple[str, int]] = ()) -> Iterator[Verdict]:
        """Decide on every candidate that has no verdict on its newest evidence.

        One model's failure keeps no other waiting: it is reported once, and that model is tried
        again when something about it changes, or after a while that doubles each time. A server
        that does not answer ends the poll.

        Args:
            again: name and version of candidates that somebody set just now, to be decided on also
                where the evidence is not new.

        Raises:
            ServerUnavailableError: the tracking server does not answer.
            StepError: the one model that ``target`` names cannot be read, and this is the only
                poll.
        """
        config, registry, memory = self.config, self.registry, self.memory
        only = targets.parse(config.target, config).name if config.target else None
        surveyed = survey.take(registry, only)
        decided = [
            at
            for facts in surveyed
            if facts.candidate and (at := verdict_memory.judged_ms(facts.candidate)) is not None
        ]
        since_ms = min(decided, default=0) - survey.MARGIN_MS
        reports = survey.evaluations(registry, since_ms, only) if decided else {}
        for bare in surveyed:
            facts = replace(bare, reports=reports.get(bare.name, {}))
            wished = facts.candidate is not None and (facts.name, facts.candidate.number) in again
            if not wished and not memory.due(facts.name, facts.state):
                continue
            try:
                verdict = self._decide(facts, wished=wished)
            except ServerUnavailableError as error:
                if not self._server_answers():
                    raise
                self._failed(error, facts)
            except Exception as error:  # noqa: BLE001  (whatever one model's records, tags and artifacts raise, the others are watched)
                self._failed(error, facts)
            else:
                memory.passed(facts.name)
                if verdict:
                    log.info("%s: %s", verdict.uri, verdict.words)
                    yield verdict

    def _decide(self, facts: Facts, *, wished: bool) -> Verdict | None:
        """The verdict on the candidate of one model, if it has one whose verdict does not stand."""
        config, name = self.config, facts.name
        names.check("a registered model's name", name)
        self._tell_observed(facts)
        for attempt in range(LOST_RACES):
            try:
                if not config.dry_run and (attempt or not facts.is_settled()):
                    # what a killed promotion left is finished here, also where no further promotion
                    # follows
                    AliasStore(self.registry, name).open()
                version = facts.candidate
                if version is None or (not wished and self._stands(version, facts)):
                    return None
                log.info("%s was set as @%s", version.uri, CANDIDATE)
                reason = f"set as @{CANDIDATE}"
                notify(config, PROPOSED, name, version=version.number, reason=reason)
                return candidate_decision.decide(
                    version, config, self.registry, self.evaluate, facts, self.overrides
                )
            except LostRaceError as error:
                if attempt == LOST_RACES - 1:
                    raise
                log.info("%s; reading it again", error)
                facts = next(iter(survey.take(self.registry, name)), facts)
        return None

    def _stands(self, version: Version, facts: Facts) -> bool:
        """Whether a candidate's verdict stands: by the survey, or else by its evidence."""
        if verdict_memory.stands(version, facts):
            return True
        if verdict_memory.is_another(version, facts) or not candidate_decision.decided_before(
            self.registry, version, self.config.promotion
        ):
            return False
        if not self.config.dry_run and (at := verdict_memory.judged_ms(version)) is not None:
            seen = verdict_memory.seen(version, facts, facts.reports, at)
            self.registry.set_version_tag(version.name, version.number, SEEN_TAG, seen)
        return True

    def _tell_observed(self, facts: Facts) -> None:
        """Notify of moves by other clients that the journal took note of since the last poll."""
        if facts.history is None:
            return
        last = max((version.number for version in facts.history), default=0)
        before = self.memory.unseen(facts.name, last)
        if before is not None and self.config.notifications.url:
            entries = [entry for entry in facts.entries() if entry.number > before]
            tell_observed(self.config, facts.name, entries)

    def _failed(self, error: Exception, facts: Facts) -> None:
        known = isinstance(error, StepError | ConfigError)
        words = redact(("" if known else f"{type(error).__name__}: ") + first_line(error))
        if self.config.target and self.config.promotion.watch.once:
            if known:
                raise error
            raise StepError(f"models:/{facts.name} cannot be looked at: {words}") from error
        if self.memory.failed(facts.name, facts.state, words):
            log.warning(
                "models:/%s cannot be looked at: %s; it is tried again when it changes, and now and"
                " then",
                facts.name,
                words,
            )

    def _server_answers(self) -> bool:
        """Whether the tracking server answers; if so, the failure is one model's."""
        client = self.registry.client
        try:
            RegistryClient(0.0, client).repeated(
                "asking the server", lambda: client.search_registered_models(max_results=1)
            )
        except StepError:
            return False
        return True


def _wait(inbox: queue.Queue[AliasSet], interval: float) -> set[tuple[str, int]]:
    """Candidates that were set meanwhile; empty when the interval has passed."""
    try:
        events = [inbox.get(timeout=interval)]
    except queue.Empty:
        return set()
    while not inbox.empty():
        events.append(inbox.get_nowait())
    return {(event.name, event.version) for event in events}
