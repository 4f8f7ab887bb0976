"""Answers as server-sent events."""

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import Any

from fastapi import Request
from fastapi.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from steps.serving.connection import while_connected
from steps.serving.errors import ApiError
from steps.serving.request_body import json_bytes

log = logging.getLogger(__name__)

DONE = b"data: [DONE]\n\n"


def event(value: Mapping[str, Any]) -> bytes:
    return b"data: " + json_bytes(value) + b"\n\n"


async def chat_events(chunks: AsyncGenerator[dict[str, Any]], usage: bool) -> AsyncGenerator[bytes]:
    async with aclosing(chunks):
        async for chunk in chunks:
            if usage:  # as OpenAI has it: null in all chunks but the last
                yield event({**chunk, "usage": chunk.get("usage")})
            elif chunk["choices"]:
                yield event(chunk)
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


async def event_stream(request: Request, events: AsyncGenerator[bytes], until: float) -> Response:
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
        first = await while_connected(request, anext(events))
    except BaseException:
        await events.aclose()
        raise

    async def body() -> AsyncGenerator[bytes]:
        async with aclosing(events):
            yield first
            try:
                async for following in events:
                    yield following
            except ApiError as error:
                yield event(error.body)

    return EventStream(body(), until)
