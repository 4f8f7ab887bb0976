"""Errors in the form that OpenAI's API gives them, each with its HTTP status."""

import re
from typing import Any, Self

from steps.core.redaction import redact

FIELD = re.compile(r"(?P<field>[A-Za-z_][\w.\[\]]*)=")  # how the wrappers' messages begin
SHOWN = 200  # characters of a value in an error
TYPES = {401: "authentication_error", 429: "rate_limit_error"}


class ApiError(Exception):
    """What a client is told instead of an answer.

    Args:
        status: HTTP status.
        message: one line for people.
        code: one word for programs.
        param: field of the request that is at fault.
        retry_after: seconds after which the same request may succeed.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        code: str | None = None,
        param: str | None = None,
        retry_after: int | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.code, self.param = status, message, code, param
        self.retry_after = retry_after

    @classmethod
    def of_model(cls, status: int, message: str) -> Self:
        """What a model says of a request: its own fault from 400 to 499, else its failure."""
        if status == 429:
            return cls(status, message, code="rate_limit_exceeded", retry_after=1)
        if 400 <= status < 500:
            found = FIELD.match(message)
            return cls(400, message, code="invalid_value", param=found["field"] if found else None)
        if status == 503:
            return cls(503, redact(message), code="unavailable", retry_after=1)
        return cls(500, redact(message), code="model_error")

    @property
    def body(self) -> dict[str, Any]:
        """``{"error": {…}}``."""
        kind = TYPES.get(
            self.status, "invalid_request_error" if self.status < 500 else "server_error"
        )
        return {
            "error": {
                "message": self.message,
                "type": kind,
                "param": self.param,
                "code": self.code,
            }
        }

    @property
    def headers(self) -> dict[str, str]:
        return {} if self.retry_after is None else {"Retry-After": str(self.retry_after)}


def invalid(field: str, value: object, expected: str, cure: str | None = None) -> ApiError:
    """A field of the request that holds what it must not hold."""
    said = f"{field}={shown(value)}: expected {expected}"
    said = f"{said}; {cure}" if cure else said
    return ApiError(400, said, code="invalid_value", param=field)


def shown(value: object) -> str:
    """A value as an error shows it, which is its beginning where it is long."""
    text = repr(value[: SHOWN + 1] if isinstance(value, str) else value)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}…"
