"""Streams that nobody reads, at the place where ASGI hands them to the server."""

import asyncio
import time
from collections.abc import AsyncGenerator
from typing import Any

import pytest

from steps.serving.event_stream import EventStream

pytestmark = pytest.mark.anyio


async def test_a_client_that_does_not_read_gives_its_place_back() -> None:
    ended = asyncio.Event()

    async def events() -> AsyncGenerator[bytes]:
        try:
            while True:
                yield b"data: {}\n\n"
        finally:
            ended.set()

    async def receive() -> dict[str, Any]:
        await asyncio.Event().wait()  # the connection stays open
        raise AssertionError

    async def send(message: Any) -> None:
        if message["type"] == "http.response.body":
            await asyncio.Event().wait()  # all buffers are full

    scope: dict[str, Any] = {"type": "http", "asgi": {"spec_version": "2.3"}}
    stream = EventStream(events(), time.monotonic() + 0.05)
    await asyncio.wait_for(stream(scope, receive, send), 10)
    assert ended.is_set()
