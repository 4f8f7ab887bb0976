"""Deliver messages to a webhook from a thread of its own: whoever sends one does not wait, and no
failure reaches the sender.

Signed as Standard Webhooks: ``webhook-id``, ``webhook-timestamp`` and ``webhook-signature``
(``v1,base64(HMAC-SHA256(secret, "<id>.<timestamp>.<body>"))``). Every attempt has the same id, so a
receiver knows a repetition.
"""

from __future__ import annotations

import atexit
import logging
import queue
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from urllib.parse import urlsplit

import requests
from tenacity import Retrying, retry_if_exception, stop_before_delay, wait_exponential_jitter

from steps.config.notifications import NotificationsConfig
from steps.core.errors import ConfigError
from steps.registry.deadline import Deadline

log = logging.getLogger(__name__)

# messages that may wait; more means that the receiver is away, and that an event matters less than
# the process
WAITING_ROOM = 1000
FIRST_WAIT, LONGEST_WAIT = 0.5, 60.0  # seconds between attempts
# answers after which another attempt may help
REPEATED = frozenset({408, 409, 425, 429, 500, 502, 503, 504})
DELIVERED = range(200, 300)


class _UndeliveredError(Exception):
    """An attempt failed."""

    def __init__(self, why: str, *, again: bool) -> None:
        super().__init__(why)
        self.again = again


@dataclass(frozen=True)
class Message:
    """One POST."""

    id: str
    body: str
    content_type: str
    words: str  # what it is about, for the log


class Courier:
    """Delivers messages in the order in which they were sent.

    Args:
        settings: address and limits.
        secret: base64, with or without the prefix ``whsec_``.

    Raises:
        ConfigError: the secret is not base64, or empty.
    """

    def __init__(self, settings: NotificationsConfig, secret: str) -> None:
        try:
            import cloudevents.core.v1.event  # noqa: F401  (the messages' form; said here, before anything is moved)
            from standardwebhooks.webhooks import EmptyWebhookSecretError, Webhook
        except ImportError as error:
            expected = "null, or the packages cloudevents and standardwebhooks installed"
            raise ConfigError(
                "notifications.url",
                _host(settings),
                expected,
                "pip install cloudevents standardwebhooks",
            ) from error
        try:
            self._signer = Webhook(secret)
        except (ValueError, EmptyWebhookSecretError) as error:
            place = (
                f"secret_file={settings.secret_file!r}"
                if settings.secret_file
                else f"secret_env={settings.secret_env!r}"
            )
            expected = "a secret in base64, with or without whsec_ before it"
            raise ConfigError(
                f"notifications.{place}",
                "***",
                expected,
                'make one: echo "whsec_$(openssl rand -base64 32)"',
            ) from error
        self.settings = settings
        self._queue: queue.Queue[Message] = queue.Queue(WAITING_ROOM)
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._last_failure = ""

    def send(self, message: Message) -> None:
        """Take a message; returns at once."""
        try:
            self._queue.put_nowait(message)
        except queue.Full:
            log.warning(
                "notification %s is dropped: %d wait for %s already",
                message.words,
                WAITING_ROOM,
                _host(self.settings),
            )
            return
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(
                    target=self._work, name="notifications", daemon=True
                )
                self._thread.start()

    def flush(self, seconds: float) -> bool:
        """Wait until all was delivered or given up, at most ``seconds``. Returns whether it was."""
        deadline = time.monotonic() + seconds
        while self._queue.unfinished_tasks and time.monotonic() < deadline:
            time.sleep(0.02)
        return not self._queue.unfinished_tasks

    def end(self) -> None:
        """At the end of the process: wait within the limit, and say what was not delivered."""
        if not self.flush(self.settings.flush_seconds):
            why = f"; the last attempt failed: {self._last_failure}" if self._last_failure else ""
            log.warning(
                "%d notifications were not delivered to %s within notifications.flush_seconds=%g%s",
                self._queue.unfinished_tasks,
                _host(self.settings),
                self.settings.flush_seconds,
                why,
            )

    def _work(self) -> None:
        while True:
            message = self._queue.get()
            try:
                self._deliver(message)
            except _UndeliveredError as error:
                log.warning(
                    "notification %s was not delivered to %s: %s",
                    message.words,
                    _host(self.settings),
                    error,
                )
            except Exception:  # a bug: the next message shall be delivered all the same
                log.exception("notification %s was not delivered", message.words)
            finally:
                self._queue.task_done()

    def _deliver(self, message: Message) -> None:
        retrying = Retrying(
            retry=retry_if_exception(
                lambda error: isinstance(error, _UndeliveredError) and error.again
            ),
            stop=stop_before_delay(self.settings.retry_seconds),
            wait=wait_exponential_jitter(
                multiplier=FIRST_WAIT, max=LONGEST_WAIT, jitter=FIRST_WAIT
            ),
            reraise=True,
        )
        until = time.monotonic() + self.settings.retry_seconds
        retrying(self._attempt, message, until)

    def _attempt(self, message: Message, until: float) -> None:
        settings = self.settings
        # timeout= is for each read, of which a receiver may make any number
        deadline = Deadline(min(settings.timeout, max(0.0, until - time.monotonic())))
        try:
            with (
                deadline,
                deadline.session.post(
                    settings.url or "",
                    data=message.body.encode(),
                    headers={"Content-Type": message.content_type, **self.signed(message)},
                    timeout=settings.timeout,
                    allow_redirects=False,  # the signed message is for this address alone
                    # or requests would send what .netrc holds for this host
                    auth=lambda request: request,
                    stream=True,  # the answer's body is not wanted
                ) as answer,
            ):
                status = answer.status_code
                if deadline.passed:  # headers that were cut off look like ones that ended
                    raise requests.ReadTimeout
        except requests.RequestException as error:
            # its text holds the address, of which a part may be a token
            self._last_failure = (
                f"ReadTimeout, no answer within notifications.timeout={settings.timeout:g}"
                if deadline.passed
                else type(error).__name__
            )
            raise _UndeliveredError(self._last_failure, again=True) from error
        if status not in DELIVERED:
            self._last_failure = f"HTTP {status}"
            raise _UndeliveredError(self._last_failure, again=status in REPEATED)

    def signed(self, message: Message) -> Mapping[str, str]:
        """The three headers of Standard Webhooks, for an attempt made now."""
        now = datetime.now(UTC)
        return {
            "webhook-id": message.id,
            "webhook-timestamp": str(int(now.timestamp())),
            "webhook-signature": self._signer.sign(message.id, now, message.body),
        }


def _host(settings: NotificationsConfig) -> str:
    """Where to, for the log: an address may hold a token in its path."""
    return urlsplit(settings.url or "").netloc


_COURIERS: dict[tuple[str | None, str], Courier] = {}
_LOCK = threading.Lock()


def courier(settings: NotificationsConfig, secret: str) -> Courier:
    """The courier of an address, one for the process; what it holds is flushed when the process
    ends.

    Raises:
        ConfigError: the secret is not base64, or empty.
    """
    with _LOCK:
        running = _COURIERS.get((settings.url, secret))
        if running is None:
            running = _COURIERS[settings.url, secret] = Courier(settings, secret)
            atexit.register(running.end)
        return running
