"""Tell a webhook what became of a version: proposed, held, waiting for approval, approved,
rejected, promoted, rolled back, observed, drifted.

A notification follows what it tells of, and is nothing that a move waits for or depends on:
:func:`notify` returns at once and raises nothing. The form is a CloudEvent in structured mode,
``application/cloudevents+json``.
"""

from __future__ import annotations

import logging
import os
import uuid
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import cache, partial
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import mlflow
from mlflow.exceptions import MlflowException

from steps.config.notifications import (
    HELD,
    OBSERVED,
    PROMOTED,
    PROPOSED,
    ROLLED_BACK,
    WAITING,
    NotificationsConfig,
)
from steps.config.root import Config
from steps.core.errors import ConfigError, StepError
from steps.core.redaction import redact
from steps.registry import actors, result
from steps.registry import target as targets
from steps.registry.alias_store import AliasStore
from steps.registry.client import RegistryClient, ServerUnavailableError
from steps.registry.delivery import Courier, Message, courier
from steps.registry.entry import Entry
from steps.registry.permission import WaitingError
from steps.registry.record import Move
from steps.registry.result import Promotion, RefusedError, Row

log = logging.getLogger(__name__)

SCHEMA = "slm-promote/notification/1"
TYPE = "slm_promote.{event}.v1"
MOST_WORDS = 2000  # characters of a reason
READING_SECONDS = 5.0  # for how long the history is asked for after a move
# what a damaged entry of the history raises
UNREADABLE = (ValueError, TypeError, LookupError, AttributeError)


def check(settings: NotificationsConfig) -> Courier | None:
    """The courier of the configured webhook; None where none is configured. For the start of a
    command, before anything is moved.

    Raises:
        ConfigError: there is an address and no usable secret.
    """
    if settings.url is None:
        return None
    if settings.secret_file:
        try:
            secret = Path(settings.secret_file).expanduser().read_text(encoding="utf-8").strip()
        except (OSError, ValueError) as error:
            raise ConfigError(
                "notifications.secret_file",
                settings.secret_file,
                "a file that holds the signing secret",
            ) from error
    else:
        secret = os.environ.get(settings.secret_env, "")
        if not secret:
            expected = "an environment variable that holds the signing secret"
            raise ConfigError(
                "notifications.secret_env",
                settings.secret_env,
                expected,
                "export it, or set notifications.secret_file",
            )
    return courier(settings, secret)


def notify(
    config: Config,
    event: str,
    name: str,
    *,
    version: int | None = None,
    reason: str = "",
    who: str | None = None,
    alias: str | None = None,
    moves: Sequence[Move] = (),
    entry: int | None = None,
    evidence: str | None = None,
    evidence_digest: str | None = None,
    forced: bool = False,
    event_id: str | None = None,
) -> None:
    """Send one event, if it is one of ``notifications.events`` and this is not a dry run. Never
    waits, never raises.

    Args:
        config: ``notifications`` and ``dry_run`` count.
        event: one of ``steps.config.notifications.EVENTS``.
        name: registered model.
        version: that the event is about.
        reason: in words.
        who: acted; the default is the user of this process.
        alias: that was to move, or did.
        moves: that were made.
        entry: number in ``<name>.history``.
        evidence: URI of the report.
        evidence_digest: of the report's bytes.
        forced: whether the policy was overruled.
        event_id: the same for the same event, where several processes may tell of it.
    """
    settings = config.notifications
    if settings.url is None or event not in settings.events or config.dry_run:
        return
    data = {
        "schema": SCHEMA,
        "event": event,
        "name": name,
        "version": version,
        "uri": f"models:/{name}/{version}" if version else f"models:/{name}",
        "alias": alias or config.promotion.alias,
        "moves": [vars(move) for move in moves],
        "reason": redact(reason)[:MOST_WORDS],
        "who": who or current_user(),
        "entry": entry,
        "evidence": evidence,
        "evidence_digest": evidence_digest,
        "forced": forced,
        "run_id": result.active_run_id(),
    }
    try:
        sender = check(settings)
    except ConfigError as error:
        log.warning("notification %s of %s is not sent: %s", event, data["uri"], redact(str(error)))
        return
    if sender is not None:
        sender.send(_message(event, name, data, event_id or str(uuid.uuid4())))


def announced(config: Config, call: Callable[[], Promotion]) -> Promotion:
    """Make a move and tell of what came of it.

    Args:
        config: of the move.
        call: makes it.

    Raises:
        ConfigError: there is an address and no usable secret; nothing was moved.
        Exception: whatever ``call`` raises.
    """
    if check(config.notifications) is None:
        return call()
    target = targets.parse(config.target, config)
    since = datetime.now(UTC).isoformat(timespec="milliseconds")
    try:
        promotion = call()
    except ServerUnavailableError:
        raise
    except StepError as error:
        if isinstance(error, RefusedError):
            event = WAITING if isinstance(error, WaitingError) else HELD
            notify(
                config,
                event,
                target.name,
                version=target.version,
                reason=str(error),
                alias=config.alias or target.alias,
            )
        tell_observed(config, target.name, _entries_since(target.name, since))
        raise
    tell_observed(config, promotion.name, _entries_since(promotion.name, since))
    tell(config, promotion)
    return promotion


def tell(config: Config, promotion: Promotion) -> None:
    """Notify of a run's new versions, of those that were held, and of the alias that moved."""
    if promotion.dry_run:
        return
    about = partial(
        notify,
        config,
        name=promotion.name,
        alias=promotion.alias,
        evidence=promotion.report_uri,
        evidence_digest=promotion.evidence_digest,
    )
    for row in promotion.rows:
        if row.created:
            about(PROPOSED, version=row.version, reason="registered")
        if row.canary not in ("", "passed") or (
            promotion.kind == "register" and row.decision != "promote"
        ):
            about(HELD, version=row.version, reason=_why_held(row))
    if promotion.waiting is not None:
        about(WAITING, version=promotion.waiting, reason=promotion.reason)
    main = next((move for move in promotion.moves if move.alias == promotion.alias), None)
    if promotion.entry is not None and main is not None:
        about(
            ROLLED_BACK if promotion.kind == "rollback" else PROMOTED,
            version=main.after,
            reason=promotion.reason,
            moves=promotion.moves,
            entry=promotion.entry,
            forced=promotion.forced,
        )


def tell_observed(config: Config, name: str, entries: Sequence[Entry]) -> None:
    """Notify of those entries that take note of moves by other clients."""
    for entry in entries:
        record = entry.record
        if record.kind == OBSERVED:
            moved = record.moves[0] if record.moves else Move(config.promotion.alias, None, None)
            notify(
                config,
                OBSERVED,
                name,
                version=moved.after,
                reason=record.reason,
                who=record.actor,
                alias=moved.alias,
                moves=record.moves,
                entry=entry.number,
                event_id=f"{record.id}-{OBSERVED}",
            )


@cache
def current_user() -> str | None:
    """The user of this process as the history shows them; None while the server is away."""
    try:
        return actors.who(RegistryClient(0.0)).shown
    except StepError:
        return None


def _why_held(row: Row) -> str:
    if row.canary not in ("", "passed"):
        return f"its canary failed ({row.canary})"
    return f"its verdict is {row.decision!r}: {', '.join(row.failed_gates) or 'no gate is named'}"


def _entries_since(name: str, since: str) -> Sequence[Entry]:
    """Entries since a moment of this process's clock; read after a move, which must not wait."""
    try:
        return [
            entry
            for entry in AliasStore(RegistryClient(READING_SECONDS), name).read().entries
            if entry.record.created >= since
        ]
    except (StepError, MlflowException, *UNREADABLE) as error:
        log.warning(
            "history of %r: cannot be read, so no move by another client is told of (%s)",
            name,
            redact(str(error)),
        )
        return ()


def _message(event: str, name: str, data: dict[str, Any], event_id: str) -> Message:
    from cloudevents.core.formats.json import JSONFormat
    from cloudevents.core.v1.event import CloudEvent

    attributes = {
        "id": event_id,
        "source": source(name),
        "type": TYPE.format(event=event),
        "subject": str(data["uri"]),
        "datacontenttype": "application/json",
    }
    body = JSONFormat().write(CloudEvent(attributes, data)).decode()
    return Message(event_id, body, JSONFormat.CONTENT_TYPE, f"{event} of {data['uri']}")


def source(name: str) -> str:
    """The model's page on the tracking server, without credentials; a path without a server."""
    page = f"#/models/{quote(name, safe='')}"
    parts = urlsplit(mlflow.get_tracking_uri())
    if parts.scheme in ("http", "https") and parts.hostname:
        host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
        port = f":{parts.port}" if parts.port else ""
        return f"{parts.scheme}://{host}{port}{parts.path.rstrip('/')}/{page}"
    return f"/{page}"
