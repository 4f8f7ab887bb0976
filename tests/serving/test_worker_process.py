"""A worker's process, started and ended without a model."""

import asyncio
from pathlib import Path

import pytest

from steps.serving.worker_process import LoadFailedError, WorkerProcess

pytestmark = [pytest.mark.anyio, pytest.mark.server, pytest.mark.timeout(300)]


async def start(folder: Path, scratch: Path, timeout: float = 120.0) -> WorkerProcess:
    scratch.mkdir()
    return await WorkerProcess.start(
        folder, scratch, model_config={}, memory_limit_bytes=None, timeout=timeout
    )


async def test_a_load_that_fails_leaves_every_later_connection_readable(tmp_path: Path) -> None:
    folder = tmp_path / "not-a-model"
    folder.mkdir()
    with pytest.raises(LoadFailedError, match="MLmodel"):
        await start(folder, tmp_path / "scratch")
    assert not (tmp_path / "scratch").exists()

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(await reader.readline())
        writer.close()

    async with await asyncio.start_server(echo, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        for number in range(8):  # the first ones get the numbers that the worker's sockets had
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(f"{number}\n".encode())
            assert await asyncio.wait_for(reader.readline(), 5) == f"{number}\n".encode()
            writer.close()


async def test_a_load_that_is_given_up_leaves_no_process(tmp_path: Path) -> None:
    import psutil

    before = {child.pid for child in psutil.Process().children(recursive=True)}
    loading = asyncio.create_task(start(tmp_path, tmp_path / "scratch"))
    while {child.pid for child in psutil.Process().children(recursive=True)} <= before:
        await asyncio.sleep(0.01)
    loading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await loading
    assert {child.pid for child in psutil.Process().children(recursive=True)} <= before
    assert not (tmp_path / "scratch").exists()
