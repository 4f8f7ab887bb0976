"""The HTTP application: addresses, their schemas, and errors in OpenAI's form."""

import hashlib
import logging
import time
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

from fastapi import FastAPI, Request
from fastapi.responses import Response
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect

from steps.config.serve import ServeConfig
from steps.serving import api_schema as schema
from steps.serving.completions import Completions
from steps.serving.connection import ClientLeftError
from steps.serving.errors import ApiError, shown
from steps.serving.json_response import json_response
from steps.serving.metrics import Metrics
from steps.serving.status import Status

log = logging.getLogger(__name__)
PROBED = ["GET", "HEAD"]  # some load balancers probe without wanting a body


def application(
    completions: Completions,
    status: Status,
    metrics: Metrics,
    config: ServeConfig,
    lifespan: Callable[[FastAPI], AbstractAsyncContextManager[None]],
) -> FastAPI:
    """The ASGI application.

    Args:
        completions: the endpoints that answer.
        status: the endpoints that say what is served.
        metrics: told of what is rejected.
        config: of the server.
        lifespan: what runs beside it.
    """
    app = FastAPI(
        title="slm-promote",
        summary="Registered small language models, by OpenAI's API",
        version="1",
        lifespan=lifespan,
        docs_url=None,  # loads its scripts from elsewhere
        redoc_url=None,
    )
    bad = schema.errors(400, 401, 404, 408, 413, 415, 429, 500, 503)
    route = app.add_api_route
    route(
        "/v1/chat/completions",
        completions.chat,
        methods=["POST"],
        openapi_extra=schema.asked(schema.CHAT_REQUEST),
        responses={**schema.answered(schema.CHAT_ANSWER, streamed=True), **bad},
    )
    route(
        "/v1/completions",
        completions.completion,
        methods=["POST"],
        openapi_extra=schema.asked(schema.COMPLETION_REQUEST),
        responses={**schema.answered(schema.COMPLETION_ANSWER, streamed=True), **bad},
    )
    route(
        "/v1/models",
        status.models,
        methods=["GET"],
        responses={**schema.answered(schema.MODELS), **schema.errors(401)},
    )
    route(
        "/v1/models/{model:path}",
        status.model,
        methods=["GET"],
        responses={**schema.answered(schema.MODEL), **schema.errors(401, 404)},
    )
    route("/healthz", status.health, methods=PROBED, response_class=Response)
    route(
        "/readyz",
        status.readiness,
        methods=PROBED,
        responses={
            **schema.answered(schema.STATE),
            503: {"description": "no version is ready", **schema.json_of(schema.STATE)},
        },
    )
    route("/metrics", status.metrics, methods=["GET"], response_class=Response)
    route("/webhook", status.hear, methods=["POST"], include_in_schema=False)
    route("/", status.page, methods=PROBED, include_in_schema=False)

    async def rejected(_: Request, error: Exception) -> Response:
        """Tell a client what is wrong."""
        assert isinstance(error, ApiError)
        metrics.rejected(error.status, error.code)
        return json_response(error.body, error.status, error.headers)

    app.add_exception_handler(ApiError, rejected)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(ClientLeftError, _nobody)
    app.add_exception_handler(ClientDisconnect, _nobody)
    app.add_exception_handler(Exception, _unexpected)
    if config.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=config.cors_origins,
            allow_methods=["GET", "POST"],
            allow_headers=["*"],  # OpenAI's client adds a dozen of its own
        )
    return app


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    said = ApiError(
        error.status_code,
        f"{shown(request.method)[1:-1]} {shown(request.url.path)[1:-1]}: {error.detail}",
        code="method_not_allowed" if error.status_code == 405 else "not_found",
    )
    return json_response(said.body, said.status, error.headers)


async def _nobody(request: Request, error: Exception) -> Response:  # noqa: ARG001
    return Response(status_code=499)  # nobody reads it


async def _unexpected(request: Request, error: Exception) -> Response:
    """A fault of ours; its traceback is in the log, without what was asked."""
    number = hashlib.sha256(f"{time.time_ns()}{request.url.path}".encode()).hexdigest()[:12]
    log.error("fault %s at %s", number, request.url.path, exc_info=error)
    said = ApiError(500, f"the server failed (fault {number} in its log)", code="server_error")
    return json_response(said.body, said.status)
