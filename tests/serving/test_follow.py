"""Aliases are moved while clients ask; workers, registries and servers are ended."""

import base64
import hashlib
import hmac
import json
import os
import shutil
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import mlflow
import pytest
import requests

from tests.serving.servers import (
    BROKEN,
    NAME,
    ONNX,
    SECOND,
    TRANSFORMERS,
    Serving,
    move,
    serving,
)

pytestmark = [pytest.mark.server, pytest.mark.slow, pytest.mark.timeout(900)]


def serving_tag(registry: str, number: int) -> str | None:
    version = mlflow.MlflowClient(registry, registry).get_model_version(NAME, str(number))
    return version.tags.get("slm.serving")


@dataclass
class Heard:
    """What clients in a loop got."""

    versions: set[str] = field(default_factory=set)
    faults: list[str] = field(default_factory=list)
    answers: int = 0


@contextmanager
def asking(server: Serving, clients: int, *, stream: bool) -> Iterator[Heard]:
    """Ask in a loop until the block ends."""
    heard, stop = Heard(), threading.Event()

    def ask() -> None:
        while not stop.is_set():
            answer = server.chat("Tell a story.", max_tokens=12, stream=stream)
            if not answer.ok:
                heard.faults.append(answer.text)
            elif '"error"' in answer.text or (stream and "data: [DONE]" not in answer.text[-20:]):
                heard.faults.append(answer.text[-500:])
            else:
                fingerprint = answer.text.partition('"system_fingerprint":"')[2].partition("-")[0]
                heard.versions.add(fingerprint)
                heard.answers += 1

    threads = [threading.Thread(target=ask) for _ in range(clients)]
    for thread in threads:
        thread.start()
    try:
        yield heard
    finally:
        stop.set()
        for thread in threads:
            thread.join()


@pytest.mark.parametrize(
    ("clients", "moves"),
    [
        (8, (SECOND, ONNX, TRANSFORMERS, ONNX)),
        pytest.param(
            16,
            (SECOND, ONNX, TRANSFORMERS, SECOND, ONNX, SECOND, TRANSFORMERS, ONNX, SECOND, ONNX),
            marks=pytest.mark.volume,
        ),
    ],
)
def test_moves_and_a_rollback_under_streaming_clients_fail_no_request(
    registry: str, tmp_path: Path, clients: int, moves: tuple[int, ...]
) -> None:
    with serving(tmp_path, registry) as server, asking(server, clients, stream=True) as heard:
        for number in moves:
            move(registry, number)
            server.wait_for(number)
        time.sleep(1)
    assert heard.faults == []
    assert heard.versions == {f"{NAME}/{number}" for number in (ONNX, SECOND, TRANSFORMERS)}
    assert heard.answers > 20


def test_a_version_that_fails_leaves_the_old_one_and_is_shown(
    registry: str, tmp_path: Path
) -> None:
    with serving(tmp_path, registry) as server, asking(server, 2, stream=False) as heard:
        move(registry, BROKEN)
        until = time.monotonic() + 60
        while not serving_tag(registry, BROKEN):
            assert time.monotonic() < until, server.said()
            time.sleep(0.2)
        state = server.state()
        assert (state["status"], server.served()) == ("degraded", ONNX)
        assert state["models"][0]["wanted"] == BROKEN
        assert "its bytes are sha256:" in state["models"][0]["failure"]
        assert str(serving_tag(registry, BROKEN)).startswith("failed: its bytes are")
        assert server.metric("slm_load_failures_total", version=str(BROKEN)) == 1
        move(registry, ONNX)
        until = time.monotonic() + 30
        while server.state()["status"] != "ready":
            assert time.monotonic() < until
            time.sleep(0.2)
    assert heard.faults == []
    assert heard.versions == {f"{NAME}/{ONNX}"}


def test_a_worker_that_is_killed_is_replaced(registry: str, tmp_path: Path) -> None:
    with serving(tmp_path, registry) as server:
        (worker,) = server.workers()
        os.kill(worker, signal.SIGKILL)
        until = time.monotonic() + 60
        while True:  # asked at once: it waits for the next worker
            answer = server.chat("What is the capital of Germany?", max_tokens=16)
            if server.workers() not in ([], [worker]) or time.monotonic() > until:
                break
        assert answer.ok, answer.text
        assert "Berlin" in answer.json()["choices"][0]["message"]["content"]
        assert server.metric("slm_worker_restarts_total") == 1


def test_a_stream_that_had_begun_ends_with_an_error_where_its_worker_is_killed(
    registry: str, tmp_path: Path
) -> None:
    with serving(tmp_path, registry) as server:
        (worker,) = server.workers()
        body = {
            "messages": [{"role": "user", "content": "Tell a very long story."}],
            "max_tokens": 2000,
            "stream": True,
        }
        url = f"{server.url}/v1/chat/completions"
        with requests.post(url, json=body, stream=True, timeout=120) as answer:
            lines = answer.iter_lines()
            for _ in range(6):
                next(lines)
            os.kill(worker, signal.SIGKILL)
            rest = b"\n".join(lines).decode()
        assert '"code":"worker_ended"' in rest
        assert "[DONE]" not in rest


def test_a_server_lives_without_its_registry_and_starts_without_it(
    registry: str, tmp_path: Path
) -> None:
    database = tmp_path / "mlflow.db"
    with serving(tmp_path, registry) as server:
        # a registry that is damaged answers every question with an error
        shutil.copy(database, tmp_path / "kept.db")
        database.write_bytes(b"not a database" * 1000)
        until = time.monotonic() + 60
        while server.state()["models"][0]["registry"] == "ok":
            assert time.monotonic() < until
            time.sleep(0.2)
        assert server.state()["status"] == "degraded"
        assert server.chat("Hello").ok
        assert server.metric("slm_registry_up") == 0
    with serving(tmp_path, registry) as server:
        assert server.chat("Hello").ok
        assert server.state()["models"][0]["wanted"] is None
        shutil.copy(tmp_path / "kept.db", database)
        move(registry, SECOND)
        server.wait_for(SECOND)
        assert server.state()["status"] == "ready"


def test_a_split_and_a_shadow_are_told_apart_in_the_metrics(registry: str, tmp_path: Path) -> None:
    move(registry, SECOND, "challenger")
    words = ("+serve.split={champion:1,challenger:1}",)
    with serving(tmp_path, registry, *words) as server:
        server.wait_for(SECOND, "challenger")
        for number in range(24):
            assert server.chat(f"Question {number}", max_tokens=2).ok
        for number in (ONNX, SECOND):
            assert server.metric("slm_requests_total", version=str(number), role="answered") > 3


def test_shadow_traffic_is_asked_and_not_answered(registry: str, tmp_path: Path) -> None:
    move(registry, SECOND, "challenger")
    with serving(tmp_path, registry, "serve.shadow=challenger") as server:
        server.wait_for(SECOND, "challenger")
        for number in range(4):
            answer = server.chat(f"Question {number}", max_tokens=2).json()
            assert answer["system_fingerprint"].startswith(f"{NAME}/{ONNX}-")
            time.sleep(0.3)

        def asked_too() -> float:
            return server.metric("slm_requests_total", version=str(SECOND), role="shadow")

        until = time.monotonic() + 20
        while asked_too() < 4:
            assert time.monotonic() < until
            time.sleep(0.1)
        completion = {"model": NAME, "prompt": "One, two,", "max_tokens": 2}
        requests.post(f"{server.url}/v1/completions", json=completion, timeout=60)
        while asked_too() < 5:
            assert time.monotonic() < until
            time.sleep(0.1)
        assert server.metric("slm_requests_total", version=str(SECOND), role="answered") == 0


def test_a_full_queue_says_429_and_when_to_come_again(registry: str, tmp_path: Path) -> None:
    with serving(tmp_path, registry, "serve.max_waiting=1") as server:
        got: list[requests.Response] = []
        threads = [
            threading.Thread(
                target=lambda: got.append(server.chat("Tell a long story.", max_tokens=64))
            )
            for _ in range(16)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        refused = [answer for answer in got if answer.status_code == 429]
        assert len(refused) >= 5  # eight are answered, one waits; some arrive later
        assert all(answer.status_code in (200, 429) for answer in got)
        for answer in refused:
            assert int(answer.headers["Retry-After"]) >= 1
            assert answer.json()["error"]["type"] == "rate_limit_error"


def test_a_request_is_late_from_its_arrival(registry: str, tmp_path: Path) -> None:
    with serving(tmp_path, registry, "serve.request_timeout=2") as server:
        began = time.monotonic()
        answer = server.chat("Tell a very long story about everything.", max_tokens=2000)
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "timeout")
        assert time.monotonic() - began < 10
        assert server.chat("Hello", max_tokens=2).ok


def test_keys_guard_what_answers_and_not_the_probes(registry: str, tmp_path: Path) -> None:
    key = "a-key-of-this-test-0123456789"
    with serving(tmp_path, registry, SLM_API_KEYS=key) as server:
        assert server.chat("Hello").status_code == 401
        assert requests.get(f"{server.url}/v1/models", timeout=10).status_code == 401
        headers = {"Authorization": f"Bearer {key}"}
        assert requests.get(f"{server.url}/v1/models", headers=headers, timeout=10).ok
        assert requests.get(f"{server.url}/readyz", timeout=10).ok
        move(registry, BROKEN)
        until = time.monotonic() + 60
        while server.state()["status"] != "degraded":
            assert time.monotonic() < until
            time.sleep(0.2)
        assert "sha256" not in str(server.state()["models"][0]["failure"])
        told = requests.get(f"{server.url}/readyz", headers=headers, timeout=10).json()
        assert "its bytes are sha256:" in told["models"][0]["failure"]
        assert key not in server.said()


def test_told_to_end_it_ends_with_its_workers(registry: str, tmp_path: Path) -> None:
    for number in (signal.SIGTERM, signal.SIGHUP):  # the latter of a terminal that is closed
        with serving(tmp_path, registry) as server:
            workers = server.workers()
            server.process.send_signal(number)
            assert server.process.wait(30) == 0
            assert f"told to end by {number.name}" in server.said()
        assert not any(Path(f"/proc/{worker}").exists() for worker in workers)
    with serving(tmp_path, registry) as server:
        workers = server.workers()
        server.process.kill()
        server.process.wait()
        until = time.monotonic() + 10
        while any(Path(f"/proc/{worker}").exists() for worker in workers):
            assert time.monotonic() < until, "a worker outlived its server"
            time.sleep(0.1)


def test_a_model_that_was_made_anew_is_not_taken_for_the_one_before(
    registry: str, tmp_path: Path
) -> None:
    client = mlflow.MlflowClient(registry, registry)
    with serving(tmp_path, registry) as server:
        other = client.get_model_version(NAME, str(TRANSFORMERS))
        client.delete_registered_model(NAME)
        until = time.monotonic() + 30
        while "there is no registered model" not in str(server.state()["models"][0]["failure"]):
            assert time.monotonic() < until
            time.sleep(0.2)
        assert server.chat("Hello", max_tokens=2).ok  # what is served stays
        client.create_registered_model(NAME)
        before = mlflow.get_tracking_uri()
        mlflow.set_tracking_uri(registry)  # where MLflow looks for the source
        try:
            client.create_model_version(NAME, str(other.source), tags=other.tags)
        finally:
            mlflow.set_tracking_uri(before)
        move(registry, 1)
        digest = other.tags["slm.digest"]
        until = time.monotonic() + 90
        while server.state()["models"][0]["digest"] != digest:
            assert time.monotonic() < until, server.said()[-2000:]
            time.sleep(0.2)
        assert server.chat("Hello", max_tokens=2).ok


def test_a_webhook_makes_it_look_at_once(registry: str, tmp_path: Path) -> None:
    secret = "a-webhook-secret-of-this-test"
    words = ("serve.poll_seconds=3600",)
    with serving(tmp_path, registry, *words, SLM_WEBHOOK_SECRET=secret) as server:
        body = json.dumps(
            {
                "entity": "model_version_alias",
                "action": "created",
                "data": {"name": NAME, "alias": "champion", "version": str(SECOND)},
            }
        ).encode()
        stamp, delivery = str(int(time.time())), "delivery-1"
        signed = hmac.new(
            secret.encode(), f"{delivery}.{stamp}.".encode() + body, hashlib.sha256
        ).digest()
        headers = {
            "X-MLflow-Signature": f"v1,{base64.b64encode(signed).decode()}",
            "X-MLflow-Timestamp": stamp,
            "X-MLflow-Delivery-Id": delivery,
        }
        move(registry, SECOND)
        forged = {**headers, "X-MLflow-Signature": "v1,AAAA"}
        url = f"{server.url}/webhook"
        assert requests.post(url, body, headers=forged, timeout=10).status_code == 401
        assert server.served() == ONNX
        assert requests.post(url, body, headers=headers, timeout=10).status_code == 204
        server.wait_for(SECOND)


def test_answers_that_are_not_whole_at_the_end_are_ended_in_openais_form(
    registry: str, tmp_path: Path
) -> None:
    with serving(tmp_path, registry, "serve.shutdown_seconds=1") as server:
        got: list[requests.Response] = []
        asked = [
            threading.Thread(
                target=lambda stream=stream: got.append(
                    server.chat("Tell a very long story.", max_tokens=2000, stream=stream)
                )
            )
            for stream in [True] * 6 + [False] * 6
        ]
        for thread in asked:
            thread.start()
        while server.metric("slm_requests_active") + server.metric("slm_requests_waiting") < 12:
            time.sleep(0.05)
        server.process.send_signal(signal.SIGTERM)
        for thread in asked:
            thread.join()
        assert server.process.wait(30) == 0
        assert len(got) == 12
        for answer in got:
            assert answer.status_code in (200, 503), answer.text[:500]
            assert '"error":{"message"' in answer.text, answer.text[-500:]
        assert "Traceback" not in server.said()


def test_a_worker_that_hangs_is_replaced(registry: str, tmp_path: Path) -> None:
    with serving(tmp_path, registry) as server:
        (worker,) = server.workers()
        os.kill(worker, signal.SIGSTOP)
        until = time.monotonic() + 120
        while server.metric("slm_worker_restarts_total") < 1:
            assert time.monotonic() < until, server.state()
            time.sleep(0.5)
        server.wait_for(ONNX)
        assert server.chat("Hello", max_tokens=2).ok
        assert "it hung" in server.said()


def test_an_alias_that_is_moved_back_while_a_version_loads_stays(
    registry: str, tmp_path: Path
) -> None:
    with serving(tmp_path, registry) as server:
        (worker,) = server.workers()
        move(registry, TRANSFORMERS)  # takes seconds to load
        until = time.monotonic() + 60
        while "loading models:/slm/2" not in server.said():
            assert time.monotonic() < until
            time.sleep(0.05)
        move(registry, ONNX)
        while "not wanted any more" not in server.said():
            assert time.monotonic() < until, server.said()
            time.sleep(0.2)
        assert server.served() == ONNX
        assert server.state()["status"] == "ready"
        assert server.workers() == [worker]
        assert server.metric("slm_alias_moves_total") == 0
