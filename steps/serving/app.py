"""The HTTP API: OpenAI's chat and text completions over what the routes serve."""

import asyncio
import hashlib
import logging
import time
from collections.abc import AsyncGenerator, Callable, Coroutine, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, aclosing
from pathlib import Path
from typing import Any, TypeVar

from fastapi import FastAPI, Request
from fastapi.responses import HTMLResponse, Response, StreamingResponse
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope, Send

from steps.config.serve import ServeConfig
from steps.serving import answers, request_body
from steps.serving import api_schema as schema
from steps.serving.answered import Answered, nowhere
from steps.serving.answers import PromptAnswer, Question
from steps.serving.deployment import Deployment
from steps.serving.errors import ApiError, invalid, shown
from steps.serving.follower import Follower
from steps.serving.keys import ApiKeys
from steps.serving.metrics import Metrics
from steps.serving.request_body import json_bytes
from steps.serving.routes import Routes
from steps.serving.webhook import AliasWebhook

log = logging.getLogger(__name__)

PAGE = Path(__file__).with_name("chat.html")
# the page loads nothing from anywhere else
PAGE_POLICY = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; connect-src"
    " 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
PROMETHEUS = "text/plain; version=0.0.4; charset=utf-8"
READ_SECONDS = 5.0  # that a client may still read when the time of its request is up
T = TypeVar("T")


class ClientLeftError(Exception):
    """The client closed its connection before it had its answer."""


class Api:
    """The routes of the API, over one server's state.

    Args:
        config: limits.
        routes: what is served.
        follower: of the aliases.
        metrics: told of each request.
        keys: who may ask.
        webhook: takes the registry's; None where no secret is known.
        trace: told of each answer.
    """

    def __init__(
        self,
        config: ServeConfig,
        routes: Routes,
        follower: Follower,
        metrics: Metrics,
        keys: ApiKeys,
        webhook: AliasWebhook | None,
        trace: Callable[[Answered], None] = nowhere,
    ) -> None:
        self._config, self._routes, self._follower = config, routes, follower
        self._metrics, self._keys, self._webhook = metrics, keys, webhook
        self._trace = trace
        self._shadows: set[asyncio.Task[None]] = set()

    # --- answers

    async def chat(self, request: Request) -> Response:
        """Answer a conversation, whole or as server-sent events."""
        arrived = time.monotonic()
        body = await self._body(request)
        stream, usage = request_body.streams(body), request_body.wants_usage(body)
        if "prompt" in body:
            raise ApiError(
                400,
                "prompt: expected messages; a prompt is asked for at /v1/completions",
                code="invalid_value",
                param="prompt",
            )
        if body.get("messages") is None:
            raise invalid("messages", None, "a list with at least one message")
        question = self._question(body, arrived, usage)
        chunks = answers.chat_chunks(question, self._metrics)
        if stream:
            return await _event_stream(request, _chat_events(chunks, usage), self._read_by(arrived))
        return _json(answers.whole(await _while_connected(request, _all(chunks))))

    async def completion(self, request: Request) -> Response:
        """Answer prompts, which are templated already, whole or as server-sent events."""
        arrived = time.monotonic()
        body = await self._body(request)
        stream, usage = request_body.streams(body), request_body.wants_usage(body)
        prompts, many = request_body.prompts_of(body)
        if "messages" in body:
            raise ApiError(
                400,
                "messages: expected prompt; messages are asked for at /v1/chat/completions",
                code="invalid_value",
                param="messages",
            )
        row = {key: value for key, value in body.items() if key != "model"}
        # one version answers all of them
        choice = self._routes.choose(body.get("model"), {**row, "prompt": prompts})
        deadline = arrived + self._config.request_timeout
        questions = [
            Question(
                choice,
                request_body.seeded({**row, "prompt": prompt}, at),
                deadline,
                usage,
                self._trace,
            )
            for prompt in prompts
            for at in range(many)
        ]
        head = answers.completion_head(questions[0])
        if stream:
            events = self._text_events(head, questions, usage)
            return await _event_stream(request, events, self._read_by(arrived))
        asked = [_all(answers.prompt_parts(question, self._metrics)) for question in questions]
        every: list[list[PromptAnswer]] = await _while_connected(request, _together(asked))
        found = [
            PromptAnswer("".join(part.text for part in parts), *_end_of(parts)) for parts in every
        ]
        choices = [answers.text_choice(index, answer) for index, answer in enumerate(found)]
        total = answers.summed([answer.usage for answer in found])
        return _json({**head, "choices": choices, "usage": total})

    async def _text_events(
        self, head: Mapping[str, Any], questions: list[Question], usage: bool
    ) -> AsyncGenerator[bytes]:
        """The answers one after another: their parts do not mix."""
        usages: list[Mapping[str, Any] | None] = []
        empty: dict[str, Any] = {"usage": None} if usage else {}
        for index, question in enumerate(questions):
            async with aclosing(answers.prompt_parts(question, self._metrics)) as parts:
                async for part in parts:
                    if part.finish_reason is not None:
                        usages.append(part.usage)
                    choices = [answers.text_choice(index, part)]
                    yield _event({**head, "choices": choices, **empty})
        if usage:
            yield _event({**head, "choices": [], "usage": answers.summed(usages)})
        yield DONE

    def _read_by(self, arrived: float) -> float:
        """When a client must have read its stream, on the monotonic clock."""
        return arrived + self._config.request_timeout + READ_SECONDS

    async def _body(self, request: Request) -> dict[str, Any]:
        self._keys.check(request.headers.get("authorization"))
        try:
            async with asyncio.timeout(self._config.request_timeout):
                body = await request_body.body_of(request, self._config.max_body_bytes)
        except TimeoutError:
            raise ApiError(
                408, "the body did not come within serve.request_timeout", code="timeout"
            ) from None
        request_body.limit_tokens(body, self._config.max_tokens)
        return body

    def _question(self, body: Mapping[str, Any], arrived: float, usage: bool) -> Question:
        row = {key: value for key, value in body.items() if key != "model"}
        choice = self._routes.choose(body.get("model"), row)
        until = arrived + self._config.request_timeout
        question = Question(choice, row, until, usage, self._trace)
        for deployment in choice.shadows:
            task = asyncio.create_task(answers.shadow(question, deployment, self._metrics))
            self._shadows.add(task)
            task.add_done_callback(self._shadows.discard)
        return question

    # --- what is served

    async def models(self, request: Request) -> Response:
        """List what a request may give as ``model``."""
        self._keys.check(request.headers.get("authorization"))
        return _json({"object": "list", "data": list(self._listed().values())})

    async def model(self, model: str, request: Request) -> Response:
        """One of what a request may give as ``model``."""
        self._keys.check(request.headers.get("authorization"))
        found = self._listed().get(model)
        if found is None:
            raise ApiError(
                404,
                f"model={shown(model)} is not served here; GET /v1/models lists what is",
                code="model_not_found",
                param="model",
            )
        return _json(found)

    def _listed(self) -> dict[str, dict[str, Any]]:
        listed: dict[str, dict[str, Any]] = {}
        for name in self._routes.names:
            served = [route for route in self._routes.of(name) if route.deployment and route.share]
            if served:
                listed[name] = _listed(name, served[0].deployment, [r.alias for r in served])
        for route in self._routes.all:
            if route.deployment is not None and not route.shadow:
                listed[route.id] = _listed(route.id, route.deployment, [route.alias])
        return listed

    async def health(self) -> Response:
        """Whether the server's loop turns."""
        return _json({"status": "ok"})

    async def readiness(self, request: Request) -> Response:
        """Whether every model has a version that answers, and what keeps others from it; where keys
        are needed, reasons are for those who have one, as they name files and addresses.
        """
        try:
            self._keys.check(request.headers.get("authorization"))
            trusted = True
        except ApiError:
            trusted = False
        models: list[dict[str, Any]] = []
        for route in self._routes.all:
            served = route.deployment
            models.append(
                {
                    "model": route.name,
                    "alias": route.alias,
                    "version": served.version.number if served else None,
                    "variant": served.version.variant if served else None,
                    "digest": served.version.digest if served else None,
                    "wanted": route.wanted,
                    "ready": served is not None and served.ready,
                    "shadow": route.shadow,
                    "failure": route.failure or (served.trouble if served else "") or None,
                    "registry": self._follower.unreachable.get(route.name, "ok"),
                }
            )
        up = all(
            any(one["ready"] for one in models if one["model"] == name and not one["shadow"])
            for name in self._routes.names
        )
        whole = up and not any(
            one["failure"] or one["registry"] != "ok" or not one["ready"] for one in models
        )
        status = "ready" if whole else "degraded" if up else "unavailable"
        if not trusted:
            for one in models:
                one["failure"] = one["failure"] and "a reason is told with an API key"
                one["registry"] = "ok" if one["registry"] == "ok" else "unreachable"
        return _json({"status": status, "models": models}, 200 if up else 503)

    async def metrics(self) -> Response:
        """Figures for Prometheus."""
        return Response(self._metrics.text(), media_type=PROMETHEUS)

    async def hear(self, request: Request) -> Response:
        """Take MLflow's registry webhook: look at the aliases now."""
        if self._webhook is None:
            raise ApiError(
                404,
                f"no webhook is taken here: {self._config.webhook_secret_env} holds no secret",
                code="not_found",
            )
        name = self._webhook.take(request.headers, await _small_body(request))
        if name is not None:
            self._follower.look(name)
        return Response(status_code=204)

    async def page(self) -> Response:
        """A page to chat with what is served."""
        text = await asyncio.to_thread(PAGE.read_text, "utf-8")
        return HTMLResponse(text, headers={"Content-Security-Policy": PAGE_POLICY})

    async def rejected(self, request: Request, error: Exception) -> Response:  # noqa: ARG002
        """Tell a client what is wrong, in OpenAI's form."""
        assert isinstance(error, ApiError)
        self._metrics.rejected(error.status, error.code)
        return _json(error.body, error.status, error.headers)


DONE = b"data: [DONE]\n\n"


def _event(value: Mapping[str, Any]) -> bytes:
    return b"data: " + json_bytes(value) + b"\n\n"


async def _chat_events(
    chunks: AsyncGenerator[dict[str, Any]], usage: bool
) -> AsyncGenerator[bytes]:
    async with aclosing(chunks):
        async for chunk in chunks:
            if usage:  # as OpenAI has it: null in all chunks but the last
                yield _event({**chunk, "usage": chunk.get("usage")})
            elif chunk["choices"]:
                yield _event(chunk)
    yield DONE


class EventStream(StreamingResponse):
    """Server-sent events; a client that does not read them in time loses the connection, as its
    answer would hold a place for ever.

    Args:
        events: as they are sent.
        until: when all must be read, on the monotonic clock.
    """

    def __init__(self, events: AsyncGenerator[bytes], until: float) -> None:
        headers = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
        super().__init__(events, media_type="text/event-stream", headers=headers)
        self._events, self._until = events, until

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            async with asyncio.timeout(self._until - time.monotonic()):
                await super().__call__(scope, receive, send)
        except TimeoutError:
            log.warning("a client did not read its answer within serve.request_timeout")
        finally:
            await self._events.aclose()


async def _event_stream(request: Request, events: AsyncGenerator[bytes], until: float) -> Response:
    """Server-sent events. What fails before the first is an HTTP error, what fails later an event.

    Args:
        request: that is answered.
        events: of the answer.
        until: when the client must have read them, on the monotonic clock.

    Raises:
        ApiError: there is no first event.
        ClientLeftError: the client left before it.
    """
    try:
        first = await _while_connected(request, anext(events))
    except BaseException:
        await events.aclose()
        raise

    async def body() -> AsyncGenerator[bytes]:
        async with aclosing(events):
            yield first
            try:
                async for event in events:
                    yield event
            except ApiError as error:
                yield _event(error.body)

    return EventStream(body(), until)


async def _all(parts: AsyncGenerator[T]) -> list[T]:
    async with aclosing(parts):
        return [part async for part in parts]


async def _together(works: Sequence[Coroutine[Any, Any, T]]) -> list[T]:
    """The results of several pieces of work; where one fails, the others are given up."""
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(work) for work in works]
    except ExceptionGroup as failed:
        raise failed.exceptions[0] from None
    return [task.result() for task in tasks]


async def _while_connected(request: Request, work: Any) -> Any:
    """The result of some work, which is given up when the client leaves.

    Raises:
        ClientLeftError: it did.
    """
    task, left = asyncio.ensure_future(work), asyncio.ensure_future(_left(request))
    try:
        await asyncio.wait({task, left}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientLeftError
        return task.result()
    finally:
        for one in (task, left):
            one.cancel()
        await asyncio.gather(task, left, return_exceptions=True)


async def _left(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        continue


def _end_of(parts: list[PromptAnswer]) -> tuple[str | None, Mapping[str, Any] | None]:
    return parts[-1].finish_reason, parts[-1].usage


def _listed(identity: str, deployment: Deployment | None, aliases: list[str]) -> dict[str, Any]:
    assert deployment is not None
    version = deployment.version
    return {
        "id": identity,
        "object": "model",
        "created": version.created,
        "owned_by": version.name,
        "version": version.number,
        "aliases": aliases,
        "variant": version.variant,
    }


def _json(value: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    return Response(json_bytes(value), status, dict(headers or {}), media_type="application/json")


async def _small_body(request: Request) -> bytes:
    read = bytearray()
    async for piece in request.stream():
        read += piece
        if len(read) > AliasWebhook.LARGEST:
            raise ApiError(413, "the delivery is too large", code="body_too_large")
    return bytes(read)


def application(
    api: Api,
    config: ServeConfig,
    lifespan: Callable[[FastAPI], AbstractAsyncContextManager[None]],
) -> FastAPI:
    """The ASGI application.

    Args:
        api: its routes.
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
    bad = schema.errors(400, 401, 404, 408, 413, 429, 500, 503)
    route = app.add_api_route
    route(
        "/v1/chat/completions",
        api.chat,
        methods=["POST"],
        openapi_extra=schema.asked(schema.CHAT_REQUEST),
        responses={**schema.answered(schema.CHAT_ANSWER, streamed=True), **bad},
    )
    route(
        "/v1/completions",
        api.completion,
        methods=["POST"],
        openapi_extra=schema.asked(schema.COMPLETION_REQUEST),
        responses={**schema.answered(schema.COMPLETION_ANSWER, streamed=True), **bad},
    )
    route(
        "/v1/models",
        api.models,
        methods=["GET"],
        responses={**schema.answered(schema.MODELS), **schema.errors(401)},
    )
    route(
        "/v1/models/{model:path}",
        api.model,
        methods=["GET"],
        responses={**schema.answered(schema.MODEL), **schema.errors(401, 404)},
    )
    route("/healthz", api.health, methods=["GET"], response_class=Response)
    route(
        "/readyz",
        api.readiness,
        methods=["GET"],
        responses={
            **schema.answered(schema.STATE),
            503: {"description": "no version is ready", **schema.json_of(schema.STATE)},
        },
    )
    route("/metrics", api.metrics, methods=["GET"], response_class=Response)
    route("/webhook", api.hear, methods=["POST"], include_in_schema=False)
    route("/", api.page, methods=["GET"], include_in_schema=False)
    app.add_exception_handler(ApiError, api.rejected)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(ClientLeftError, _nobody)
    app.add_exception_handler(ClientDisconnect, _nobody)
    app.add_exception_handler(Exception, _unexpected)
    if config.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=config.cors_origins,
            allow_methods=["GET", "POST"],
            allow_headers=["authorization", "content-type"],
        )
    return app


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    said = ApiError(
        error.status_code,
        f"{shown(request.method)[1:-1]} {shown(request.url.path)[1:-1]}: {error.detail}",
        code="method_not_allowed" if error.status_code == 405 else "not_found",
    )
    return _json(said.body, said.status, error.headers)


async def _nobody(request: Request, error: Exception) -> Response:  # noqa: ARG001
    return Response(status_code=499)  # nobody reads it


async def _unexpected(request: Request, error: Exception) -> Response:
    """A fault of ours; its traceback is in the log, without what was asked."""
    number = hashlib.sha256(f"{time.time_ns()}{request.url.path}".encode()).hexdigest()[:12]
    log.error("fault %s at %s", number, request.url.path, exc_info=error)
    said = ApiError(500, f"the server failed (fault {number} in its log)", code="server_error")
    return _json(said.body, said.status)
