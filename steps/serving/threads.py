"""Wait for events, and for blocking calls in threads that do not delay the end of the process."""

import asyncio
import contextlib
import threading
from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")


async def within(seconds: float, event: asyncio.Event) -> bool:
    """Whether an event happens within some seconds.

    ``asyncio.wait_for`` of Python 3.11 loses a cancellation that comes as what it waits for ends.
    """
    try:
        async with asyncio.timeout(seconds):
            return await event.wait()
    except TimeoutError:
        return False


async def in_thread(call: Callable[..., T], *arguments: Any) -> T:
    """The result of a call that may block.

    ``asyncio.to_thread`` would make the process wait at its end for a registry that does not answer
    or a download that goes on; a daemon thread is left behind.
    """
    loop = asyncio.get_running_loop()
    done: asyncio.Future[T] = loop.create_future()

    def tell(set_: Callable[[Any], None], value: Any) -> None:
        if not done.done():  # whoever waited may have left
            set_(value)

    def run() -> None:
        try:
            set_, value = done.set_result, call(*arguments)
        except BaseException as error:  # noqa: BLE001 - raised where it is waited for
            set_, value = done.set_exception, error  # type: ignore[assignment]
        with contextlib.suppress(RuntimeError):  # the loop has ended
            loop.call_soon_threadsafe(tell, set_, value)

    threading.Thread(target=run, name="blocking call", daemon=True).start()
    return await done
