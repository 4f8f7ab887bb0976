"""A double of the API behind the chat page: what it answers stands in the question."""

import asyncio
import json
import socket
import threading
from collections.abc import AsyncIterator, Mapping
from types import TracebackType
from typing import Any, Self

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from steps.serving.status import PAGE, PAGE_POLICY

NASTY = '<img src=x onerror="window.hit=1"><script>window.hit=1</script>'
CODE = "Take this:\n\n```python\nprint('<b>hi</b>')\n```\n\nIt greets."
BYTES = "grün, 語, 🙂"  # of several bytes each
PIECES = {
    "markup": [NASTY],
    "code": [CODE[:16], CODE[16:40], CODE[40:]],
    "bytes": [BYTES],
    "long": ["a-word-without-an-end" * 40],
}
STARTUP_SECONDS = 10


def model(identity: str, version: int, variant: str, *aliases: str) -> dict[str, Any]:
    """An entry of ``/v1/models``."""
    return {
        "id": identity,
        "object": "model",
        "created": 1_700_000_000,
        "owned_by": identity.partition("@")[0],
        "version": version,
        "variant": variant,
        "aliases": list(aliases),
    }


class ApiDouble:
    """The server of the page.

    Attributes:
        models: what is served.
        key: that requests must bring; None wants none.
        bodies: of the chat requests, in their order.
        authorizations: their headers.
        gate: lets the questions "wait" and "think" be answered to their end.
        left: set when a client went away before its answer's end.
    """

    def __init__(self) -> None:
        self.models = [
            model("chat", 3, "int4", "champion"),
            model("chat@champion", 3, "int4", "champion"),
            model("chat@challenger", 4, "fp32", "challenger"),
        ]
        self.key: str | None = None
        self.bodies: list[dict[str, Any]] = []
        self.authorizations: list[str | None] = []
        self.gate, self.left = threading.Event(), threading.Event()
        routes = [
            Route("/", self._page),
            Route("/v1/models", self._list),
            Route("/v1/chat/completions", self._chat, methods=["POST"]),
        ]
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.address = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        self._server = uvicorn.Server(
            uvicorn.Config(Starlette(routes=routes), log_level="error", timeout_graceful_shutdown=1)
        )
        self._thread = threading.Thread(
            target=self._server.run, kwargs={"sockets": [self._socket]}, daemon=True
        )

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.gate.set()
        self._server.should_exit = True
        self._thread.join(STARTUP_SECONDS)
        self._socket.close()

    async def _page(self, _: Request) -> Response:
        text = PAGE.read_text("utf-8")
        return HTMLResponse(text, headers={"Content-Security-Policy": PAGE_POLICY})

    async def _list(self, request: Request) -> Response:
        if refused := self._refused(request):
            return refused
        return JSONResponse({"object": "list", "data": self.models})

    async def _chat(self, request: Request) -> Response:
        body = await request.json()
        self.bodies.append(body)
        self.authorizations.append(request.headers.get("authorization"))
        question = body["messages"][-1]["content"]
        if refused := self._refused(request):
            return refused
        if question == "busy" and len(self.bodies) == 1:
            return _error(
                429, "2 requests wait already", "rate_limit_exceeded", headers={"Retry-After": "1"}
            )
        if question == "wrong":
            message = "max_tokens=512: expected at most 64, as serve.max_tokens says"
            return _error(400, message, "invalid_value", param="max_tokens")
        events = self._events(body, question)
        stream = _cut(events) if question == "bytes" else events
        return StreamingResponse(stream, media_type="text/event-stream")

    def _refused(self, request: Request) -> Response | None:
        if self.key is None or request.headers.get("authorization") == (
            f"Bearer {self.key}".encode().decode("latin-1")  # a header is its bytes
        ):
            return None
        return _error(401, "an API key is needed", "missing_api_key")

    async def _events(self, body: Mapping[str, Any], question: str) -> AsyncIterator[str]:
        ended = False
        try:
            async for event in self._answer(body, question):
                yield event
            ended = True
        finally:
            if not ended:
                self.left.set()

    async def _answer(self, body: Mapping[str, Any], question: str) -> AsyncIterator[str]:
        served = next(one for one in self.models if one["id"] == body["model"])
        head = {
            "id": "chatcmpl-1",
            "object": "chat.completion.chunk",
            "created": 1_700_000_000,
            "model": "chat",
            "system_fingerprint": f"chat/{served['version']}-0123456789ab",
        }

        def event(reason: str | None = None, **delta: Any) -> str:
            choice = {"index": 0, "delta": delta, "finish_reason": reason}
            return _event({**head, "choices": [choice]})

        yield event(role="assistant", content="")
        if question in ("wait", "think"):
            if question == "wait":
                yield event(content="first ")
            while not self.gate.is_set():
                await asyncio.sleep(0.01)
            yield event(content="second")
        elif question == "forever":
            while True:
                yield event(content="more ")
                await asyncio.sleep(0.02)
        elif question == "broken":
            yield event(content="half")
            yield _event({"error": {"message": "no memory", "param": None, "code": "model_error"}})
            return
        elif question == "cut":
            yield event(content="half")
            return
        elif question == "tools":
            yield event(reasoning_content="I need ")
            yield event(reasoning_content="the weather.")
            call = {"name": "weather", "arguments": '{"city": "Paris"}'}
            yield event(tool_calls=[{"index": 0, "id": "1", "type": "function", "function": call}])
        else:
            for piece in PIECES.get(question, [f"version {served['version']} ", "says ", "yes"]):
                yield event(content=piece)
                await asyncio.sleep(0.02)
        yield event("length" if body.get("max_tokens") == 3 else "stop")
        usage = {"prompt_tokens": 5, "completion_tokens": 3, "total_tokens": 8}
        yield _event({**head, "choices": [], "usage": usage})
        yield "data: [DONE]\n\n"


def _event(value: Mapping[str, Any]) -> str:
    return f"data: {json.dumps(value, ensure_ascii=False)}\n\n"


async def _cut(events: AsyncIterator[str]) -> AsyncIterator[bytes]:
    """The same in pieces that end within lines and within characters, one a packet."""
    async for event in events:
        data = event.encode()
        for begin in range(0, len(data), 37):
            yield data[begin : begin + 37]
            await asyncio.sleep(0.001)


def _error(
    status: int,
    message: str,
    code: str,
    *,
    param: str | None = None,
    headers: Mapping[str, str] | None = None,
) -> Response:
    said = {"message": message, "type": "error", "param": param, "code": code}
    return JSONResponse({"error": said}, status, headers)
