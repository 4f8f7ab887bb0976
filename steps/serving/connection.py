"""Work that is done while a client is there to have it."""

import asyncio
from collections.abc import AsyncGenerator, Coroutine, Sequence
from contextlib import aclosing
from typing import Any, TypeVar

from fastapi import Request

T = TypeVar("T")


class ClientLeftError(Exception):
    """The client closed its connection before it had its answer."""


async def collected(parts: AsyncGenerator[T]) -> list[T]:
    async with aclosing(parts):
        return [part async for part in parts]


async def together(works: Sequence[Coroutine[Any, Any, T]]) -> list[T]:
    """The results of several pieces of work; where one fails, the others are given up."""
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(work) for work in works]
    except ExceptionGroup as failed:
        raise failed.exceptions[0] from None
    return [task.result() for task in tasks]


async def while_connected(request: Request, work: Any) -> Any:
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
