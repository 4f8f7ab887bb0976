"""Places, the queue before them, and who is turned away."""

import asyncio
import time

import pytest

from steps.serving.admission import Admission
from steps.serving.errors import ApiError

SOON = 60.0  # seconds

pytestmark = pytest.mark.anyio


async def test_places_are_given_first_come_first_served() -> None:
    admission, order = Admission(1, 8), list[int]()

    async def ask(number: int) -> None:
        async with admission.place(time.monotonic() + SOON):
            order.append(number)
            await asyncio.sleep(0)

    await asyncio.gather(*(ask(number) for number in range(5)))
    assert order == [0, 1, 2, 3, 4]
    assert (admission.active, admission.waiting) == (0, 0)


async def test_one_more_than_may_wait_gets_429_with_retry_after() -> None:
    admission = Admission(1, 1)
    async with admission.place(time.monotonic() + SOON):
        waiting = asyncio.create_task(_hold(admission))
        await asyncio.sleep(0)
        with pytest.raises(ApiError, match=r"serve\.max_waiting") as caught:
            await _hold(admission)
        assert caught.value.status == 429
        assert int(caught.value.headers["Retry-After"]) >= 1
    await waiting


async def test_whose_time_is_up_gets_503_and_leaves_the_queue() -> None:
    admission = Admission(1, 8)
    async with admission.place(time.monotonic() + SOON):
        with pytest.raises(ApiError) as caught:
            await _hold(admission, seconds=0.01)
        assert caught.value.status == 503
        assert admission.waiting == 0
    await _hold(admission)


async def test_who_leaves_while_waiting_gives_the_place_to_the_next() -> None:
    admission = Admission(1, 8)
    async with admission.place(time.monotonic() + SOON):
        gone = asyncio.create_task(_hold(admission))
        after = asyncio.create_task(_hold(admission))
        await asyncio.sleep(0)
        gone.cancel()
    await after
    assert (admission.active, admission.waiting) == (0, 0)


async def test_who_leaves_in_the_moment_of_admission_holds_no_place() -> None:
    admission = Admission(1, 8)
    holding = asyncio.create_task(_hold(admission, held=0.01))
    await asyncio.sleep(0)
    gone = asyncio.create_task(_hold(admission))
    await asyncio.sleep(0)
    await holding  # its place is given to the second, whose task has not run yet
    gone.cancel()
    await asyncio.gather(gone, return_exceptions=True)
    await asyncio.wait_for(_hold(admission), 1)
    assert admission.active == 0


async def test_more_places_let_those_in_who_wait() -> None:
    admission, entered = Admission(1, 8), list[int]()

    async def ask(number: int) -> None:
        async with admission.place(time.monotonic() + SOON):
            entered.append(number)
            await asyncio.sleep(0.05)

    tasks = [asyncio.create_task(ask(number)) for number in range(3)]
    await asyncio.sleep(0)
    admission.resize(3)
    await asyncio.sleep(0.01)
    assert entered == [0, 1, 2]
    await asyncio.gather(*tasks)


async def _hold(admission: Admission, *, seconds: float = SOON, held: float = 0) -> None:
    async with admission.place(time.monotonic() + seconds):
        await asyncio.sleep(held)
