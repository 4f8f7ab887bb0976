"""Which requests a version answers now, which wait, and which are turned away."""

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from steps.serving.errors import ApiError

SHORTEST_RETRY, LONGEST_RETRY = 1, 60  # seconds that Retry-After says


class Admission:
    """Places for answers that are generated side by side, and a bounded queue before them, first
    come, first served.

    Args:
        capacity: places.
        max_waiting: requests that may wait for one.
    """

    def __init__(self, capacity: int, max_waiting: int) -> None:
        self.capacity, self._max_waiting = capacity, max_waiting
        self.active = 0
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._seconds = 1.0  # that an answer takes, smoothed

    @property
    def waiting(self) -> int:
        """Requests in the queue."""
        return len(self._waiting)

    def resize(self, capacity: int) -> None:
        """Change the number of places."""
        self.capacity = capacity
        self._admit()

    @asynccontextmanager
    async def place(self, deadline: float) -> AsyncIterator[None]:
        """Wait for a place and hold it.

        Args:
            deadline: on the monotonic clock.

        Raises:
            ApiError: 429 where the queue is full, 503 where the time is up.
        """
        await self._enter(deadline)
        begun = time.monotonic()
        try:
            yield
        finally:
            self._seconds += 0.1 * (time.monotonic() - begun - self._seconds)
            self.active -= 1
            self._admit()

    async def _enter(self, deadline: float) -> None:
        if self.active < self.capacity and not self._waiting:
            self.active += 1
            return
        if self.waiting >= self._max_waiting:
            raise ApiError(
                429,
                f"{self.waiting} requests wait already, as many as serve.max_waiting allows; try"
                " again later",
                code="rate_limit_exceeded",
                retry_after=self._retry_after(),
            )
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            async with asyncio.timeout(deadline - time.monotonic()):
                await turn
        except TimeoutError:
            self._give_back(turn)
            raise ApiError(
                503,
                "it waited for serve.request_timeout and its turn did not come; try again later",
                code="timeout",
                retry_after=self._retry_after(),
            ) from None
        except BaseException:  # the client left
            self._give_back(turn)
            raise

    def _give_back(self, turn: "asyncio.Future[None]") -> None:
        if turn.done() and not turn.cancelled():
            self.active -= 1
            self._admit()
        elif turn in self._waiting:
            self._waiting.remove(turn)

    def _admit(self) -> None:
        while self._waiting and self.active < self.capacity:
            turn = self._waiting.popleft()
            if not turn.done():
                self.active += 1
                turn.set_result(None)

    def _retry_after(self) -> int:
        """Seconds in which the queue, as long as it is now, has been answered."""
        expected = self._seconds * (self.waiting + 1) / max(1, self.capacity)
        return int(min(max(expected, SHORTEST_RETRY), LONGEST_RETRY))
