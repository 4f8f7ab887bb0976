"""Receive MLflow's registry webhooks and believe only those that carry the right signature.

MLflow signs as Standard Webhooks does: ``X-MLflow-Signature: v1,base64(HMAC-SHA256(secret,
"<delivery id>.<timestamp>.<body>"))``.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from steps.registry.aliases import CANDIDATE

log = logging.getLogger(__name__)

SIGNATURE, TIMESTAMP, DELIVERY = "X-MLflow-Signature", "X-MLflow-Timestamp", "X-MLflow-Delivery-Id"
# seconds a delivery may be old or early; Standard Webhooks recommends five minutes
TOLERANCE = 300.0
LARGEST_BODY = 1_048_576  # bytes; an alias event has a few hundred
REMEMBERED = 10_000  # delivery ids kept to refuse a replay; more than arrive within the tolerance


class UnsignedError(ValueError):
    """A delivery that was not signed with the secret, or that was made before."""


@dataclass(frozen=True)
class AliasSet:
    """Somebody set an alias."""

    name: str
    alias: str
    version: int


def verify(secret: str, headers: Mapping[str, str], body: bytes, now: float | None = None) -> None:
    """Check a delivery's signature and age.

    Args:
        secret: what the webhook was created with.
        headers: the request's three, under the names above.
        body: exactly as received.
        now: seconds since 1970.

    Raises:
        UnsignedError: a header is missing, the delivery is too old, or the signature is not the
            secret's.
    """
    signature, timestamp, delivery = (
        headers.get(SIGNATURE),
        headers.get(TIMESTAMP),
        headers.get(DELIVERY),
    )
    if not signature or not timestamp or not delivery:
        raise UnsignedError(
            f"a header is missing; expected {SIGNATURE}, {TIMESTAMP} and {DELIVERY}"
        )
    if (
        not timestamp.isascii()
        or not timestamp.isdigit()
        or abs((time.time() if now is None else now) - int(timestamp)) > TOLERANCE
    ):
        raise UnsignedError(f"the delivery is not of the last {TOLERANCE:g} seconds")
    signed = f"{delivery}.{timestamp}.".encode() + body
    expected = (
        "v1,"
        + base64.b64encode(hmac.new(secret.encode(), signed, hashlib.sha256).digest()).decode()
    )
    if not any(
        hmac.compare_digest(expected.encode(), given.encode()) for given in signature.split(" ")
    ):
        raise UnsignedError("the signature is not right")


def read_event(body: bytes) -> AliasSet | None:
    """The alias event in a delivery; None for any other event.

    Raises:
        ValueError: the body is not a delivery.
    """
    try:
        event = json.loads(body)
        if (event["entity"], event["action"]) != ("model_version_alias", "created"):
            return None
        data = event["data"]
        return AliasSet(str(data["name"]), str(data["alias"]), int(data["version"]))
    except (KeyError, TypeError) as error:
        raise ValueError(f"not a delivery of MLflow's ({type(error).__name__}: {error})") from error


class Receiver:
    """An HTTP server that hands on each ``candidate`` that was set.

    Args:
        host: address to listen on.
        port: 0 takes a free one.
        secret: what the webhook was created with.
        heard: called with every believed event about ``candidate``, on a thread of the server.
    """

    def __init__(
        self, host: str, port: int, secret: str, heard: Callable[[AliasSet], None]
    ) -> None:
        self.secret, self.heard = secret, heard
        self._seen: OrderedDict[str, None] = OrderedDict()
        self._lock = threading.Lock()
        self._server = ThreadingHTTPServer((host, port), self._handler())
        self._server.daemon_threads = True
        self._thread = threading.Thread(
            target=self._server.serve_forever, name="webhook", daemon=True
        )

    @property
    def port(self) -> int:
        return int(self._server.server_address[1])

    def __enter__(self) -> Receiver:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def take(self, headers: Mapping[str, str], body: bytes) -> int:
        """Deal with one delivery. Returns the HTTP status to answer with."""
        try:
            verify(self.secret, headers, body)
            event = read_event(body)
        except UnsignedError as error:
            log.warning("webhook refused: %s", error)
            return 401
        except ValueError as error:
            log.warning("webhook refused: %s", error)
            return 400
        with self._lock:
            delivery = headers[DELIVERY]
            if delivery in self._seen:
                return 204  # MLflow repeats a delivery whose answer it did not get
            self._seen[delivery] = None
            while len(self._seen) > REMEMBERED:
                self._seen.popitem(last=False)
        if event is not None and event.alias == CANDIDATE:
            self.heard(event)
        return 204

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            timeout = 10  # seconds a client may take to send

            def do_POST(self) -> None:
                length = self.headers.get("Content-Length", "")
                if not length.isdigit() or int(length) > LARGEST_BODY:
                    status = 413
                else:
                    headers = {
                        name: self.headers.get(name, "")
                        for name in (SIGNATURE, TIMESTAMP, DELIVERY)
                    }
                    status = receiver.take(headers, self.rfile.read(int(length)))
                self.send_response(status)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:
                log.debug(format, *args)

        return Handler
