"""JSON as every endpoint sends it."""

from collections.abc import Mapping
from typing import Any

from fastapi.responses import Response

from steps.serving.request_body import json_bytes


def json_response(
    value: Any, status: int = 200, headers: Mapping[str, str] | None = None
) -> Response:
    return Response(json_bytes(value), status, dict(headers or {}), media_type="application/json")
