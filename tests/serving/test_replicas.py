"""Several servers follow one alias: each by itself, on one machine and one store."""

import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.serving.servers import NAME, ONNX, SECOND, move, serving

pytestmark = [pytest.mark.server, pytest.mark.slow, pytest.mark.timeout(900)]

POLL_SECONDS = 5.0


@pytest.mark.parametrize("replicas", [3, pytest.param(10, marks=pytest.mark.volume)])
def test_replicas_follow_a_move_within_the_polling_time(
    registry: str, tmp_path: Path, replicas: int
) -> None:
    words = (f"serve.poll_seconds={POLL_SECONDS:g}", f"store.path={tmp_path / 'store'}")
    with ExitStack() as stack:
        servers = []
        for number in range(replicas):
            folder = tmp_path / str(number)
            folder.mkdir()
            servers.append(stack.enter_context(serving(folder, registry, *words, wait=None)))
        for server in servers:
            server.wait_for(ONNX)
        began = time.monotonic()
        move(registry, SECOND)
        waiting = list(servers)
        while waiting:
            waiting = [one for one in waiting if one.state()["models"][0]["wanted"] != SECOND]
            # each server looks once within the polling time; the rest is our asking all of them
            assert time.monotonic() - began < POLL_SECONDS + 2, f"{len(waiting)} do not know it"
        noticed = time.monotonic() - began
        while not all(server.served() == SECOND for server in servers):
            assert time.monotonic() - began < 180, [server.state() for server in servers]
            time.sleep(0.2)
        served = time.monotonic() - began
        print(f"{replicas} servers: move seen after {noticed:.1f} s, served after {served:.1f} s")
        for server in servers:
            answer = server.chat("What is the capital of Germany?", max_tokens=8)
            assert answer.ok, answer.text
            assert answer.json()["system_fingerprint"].startswith(f"{NAME}/{SECOND}-")
