"""A deployment without a model: how it ends, and what it says meanwhile."""

import asyncio
import time
from pathlib import Path

import pytest

from steps.config.serve import ServeConfig
from steps.serving import deployment as room
from steps.serving.deployment import Deployment
from steps.serving.errors import ApiError
from steps.serving.served_version import ServedVersion

pytestmark = pytest.mark.anyio
VERSION = ServedVersion("slm", 3, "onnx", "sha256:0")


async def test_a_response_that_will_ask_again_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "DRAIN_GRACE", 0.0)
    drained = Deployment(VERSION, tmp_path, ServeConfig(drain_seconds=60))
    with drained.held():
        draining = asyncio.create_task(drained.drain())
        await asyncio.sleep(0.2)
        assert not draining.done()
    await asyncio.wait_for(draining, 5)


async def test_it_is_not_waited_for_longer_than_the_config_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "DRAIN_GRACE", 0.0)
    drained = Deployment(VERSION, tmp_path, ServeConfig(drain_seconds=0.1))
    with drained.held():
        await asyncio.wait_for(drained.drain(), 5)


async def test_who_waits_for_a_worker_hears_that_there_will_be_none(tmp_path: Path) -> None:
    closed = Deployment(VERSION, tmp_path, ServeConfig())

    async def ask() -> None:
        async for _ in closed.events({}, time.monotonic() + 60):
            raise AssertionError

    asking = asyncio.create_task(ask())
    await asyncio.sleep(0.05)
    await closed.close()
    with pytest.raises(ApiError, match="the server ends, or another version is served") as caught:
        await asyncio.wait_for(asking, 5)
    assert caught.value.status == 503
