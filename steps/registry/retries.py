"""Which errors of the tracking server pass by themselves, and whose retries count."""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from mlflow.exceptions import MlflowException
from requests import RequestException

TRANSIENT = frozenset(
    {"INTERNAL_ERROR", "TEMPORARILY_UNAVAILABLE", "REQUEST_LIMIT_EXCEEDED", "RESOURCE_EXHAUSTED"}
)
MISSING = frozenset({"RESOURCE_DOES_NOT_EXIST", "NOT_FOUND"})
EXISTS = frozenset({"RESOURCE_ALREADY_EXISTS", "ALREADY_EXISTS"})
REFUSED = frozenset({"PERMISSION_DENIED", "UNAUTHENTICATED", "CUSTOMER_UNAUTHORIZED"})
UNAUTHENTICATED = 401  # HTTP: the server does not know who asks
# what an error says behind a call of a command that moves aliases
AFTERWARDS = (
    "; if a move had begun, the next run finishes it: run the same command again when the server is"
    " back"
)
TRANSIENT_STATUS = frozenset({408, 429, 500, 502, 503, 504})
OWN_RETRIES = "MLFLOW_HTTP_REQUEST_MAX_RETRIES"
# MLflow sets a tag or an alias by looking for the row and then inserting it; two who do so at once
# collide, which it calls a bad request.
COLLISION = re.compile(
    r"UniqueViolation|UNIQUE constraint|Duplicate entry|deadlock|could not"
    r" serialize|StaleDataError|expected to update",
    re.I,
)
UNREACHABLE = re.compile(
    r"Max retries exceeded|[Cc]onnection"
    r" (?:refused|aborted|reset)|ConnectionError|RemoteDisconnected|[Tt]imed?"
    r" ?out|\b(?:429|50[0234])\b"
)
_LOCK = threading.Lock()
_INSIDE: list[int] = []  # threads that are in a call
_BEFORE: list[str | None] = []  # the variable's value before the first of them


def is_transient(error: MlflowException) -> bool:
    """Whether repeating a call may help: the server is away, overloaded, or two writers met."""
    status = status_of(error)
    if status in (401, 403, 404):
        return False
    if error.error_code == "BAD_REQUEST" and COLLISION.search(str(error)):
        return True
    return error.error_code in TRANSIENT or status in TRANSIENT_STATUS


def is_missing_artifact(error: MlflowException) -> bool:
    """Whether a download failed as the file is missing, which MLflow calls an internal error."""
    return "failures occurred while downloading" in str(error) and not UNREACHABLE.search(
        str(error)
    )


def is_outage(error: BaseException) -> bool:
    """Whether a call failed as a server is away: it may work a minute later."""
    if isinstance(error, MlflowException):
        return is_transient(error)
    if isinstance(error, RequestException):  # of an artifact store behind the tracking server
        return error.response is None or error.response.status_code in TRANSIENT_STATUS
    return False


def status_of(error: MlflowException) -> int | None:
    code = getattr(error, "get_http_status_code", None)
    return int(code()) if callable(code) else None


def cure_of_refusal(error: MlflowException, permission: str) -> str:
    """What a user does whom the server does not know, or who lacks a permission."""
    cure = "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD to those of a user"
    if status_of(error) == UNAUTHENTICATED:
        return cure
    return f"ask its administrator for {permission}, or {cure} who has it"


def first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [""])[0][:300]


@contextmanager
def without_own_retries() -> Iterator[None]:
    """Turn MLflow's own retries off by the environment; threads share the change."""
    with _LOCK:
        if not _INSIDE:
            _BEFORE.append(os.environ.get(OWN_RETRIES))
            os.environ[OWN_RETRIES] = "0"
        _INSIDE.append(threading.get_ident())
    try:
        yield
    finally:
        with _LOCK:
            _INSIDE.remove(threading.get_ident())
            if not _INSIDE:
                before = _BEFORE.pop()
                if before is None:
                    os.environ.pop(OWN_RETRIES, None)
                else:
                    os.environ[OWN_RETRIES] = before
