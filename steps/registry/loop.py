"""The loop of ``watch``: look, wait for the clock or a webhook, look again."""

from __future__ import annotations

import logging
import os
import queue
from collections.abc import Callable
from contextlib import ExitStack

from steps.config.root import Config
from steps.core.errors import ConfigError
from steps.registry.client import RegistryClient, ServerUnavailableError
from steps.registry.look import looking
from steps.registry.notifications import check
from steps.registry.waiting import Memory
from steps.registry.watch import Evaluate, Verdict, run_evaluation
from steps.registry.webhook import AliasSet, Receiver

log = logging.getLogger(__name__)


def loop(
    config: Config,
    *,
    registry: RegistryClient | None = None,
    evaluate: Evaluate = run_evaluation,
    keep: Callable[[list[Verdict]], None] = lambda _: None,
) -> list[Verdict]:
    """Look at once, then after each interval and each webhook, until the process is ended or, with
    ``promotion.watch.once``, once.

    Args:
        config: ``promotion.watch``, and what :func:`steps.registry.look.looking` reads.
        registry: the tracking server; the default follows the process's URIs.
        evaluate: makes evidence about a version.
        keep: gets all verdicts so far after each new one.

    Raises:
        ConfigError: a webhook is to be received or told and its secret is not in the environment.
    """
    settings = config.promotion.watch
    registry = registry or RegistryClient(config.promotion.retry_seconds)
    inbox: queue.Queue[AliasSet] = queue.Queue()
    verdicts: list[Verdict] = []
    memory = Memory()
    check(config.notifications)
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
            log.info("listening for webhooks on http://%s:%d", settings.webhook_host, receiver.port)
        again: list[tuple[str, int]] = []
        while True:
            try:
                for verdict in looking(
                    config, registry, evaluate, again=tuple(again), memory=memory
                ):
                    verdicts.append(verdict)
                    keep(verdicts)
                again = []
            except ServerUnavailableError as error:
                if settings.once:
                    raise
                log.warning("%s; waiting for it", error)
            if settings.once:
                return verdicts
            again += _wait(inbox, settings.interval)


def _wait(inbox: queue.Queue[AliasSet], interval: float) -> list[tuple[str, int]]:
    """Candidates that were set meanwhile; empty when the interval has passed."""
    try:
        events = [inbox.get(timeout=interval)]
    except queue.Empty:
        return []
    while not inbox.empty():
        events.append(inbox.get_nowait())
    return [(event.name, event.version) for event in events]
