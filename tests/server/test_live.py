"""Clients, people and other servers around a promotion, on a real server with PostgreSQL."""

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mlflow
import pytest

from steps.registry.client import RegistryClient
from steps.registry.export_archive import export
from steps.registry.import_archive import import_
from steps.registry.watcher import Watcher
from tests.registry import commands, scene
from tests.registry.commands import promote, rollback
from tests.server.servers import Postgres, Server, free_port

pytestmark = [pytest.mark.server]
QUESTION = {"messages": [{"role": "user", "content": "hello there"}]}


@pytest.fixture
def name(remote: str, request: pytest.FixtureRequest) -> Iterator[str]:  # noqa: ARG001
    """A registered model with two versions, both passed: 1 transformers, 2 onnx and champion."""
    chosen = str(request.node.name).replace("_", "-")[:60]
    with mlflow.start_run():
        slow, fast = scene.log_model("transformers"), scene.log_model("onnx")
        uri = scene.log_report(
            [
                scene.candidate(slow, "transformers", scene.GOOD),
                scene.candidate(fast, "onnx", scene.FAST),
            ],
            name=chosen,
        )
    commands.register(uri, scene.config())
    yield chosen


def shape(value: Any) -> Any:
    """Types and keys of an answer."""
    if isinstance(value, dict):
        return {key: shape(item) for key, item in value.items()}
    if isinstance(value, list):
        return [shape(item) for item in value]
    return type(value).__name__


@pytest.mark.usefixtures("no_canary")
def test_alias_moves_under_a_client_without_a_failed_request(name: str) -> None:
    answers: list[Any] = []
    faults: list[str] = []
    stop = threading.Event()

    def client() -> None:
        while not stop.is_set():
            try:
                answers.append(
                    mlflow.pyfunc.load_model(f"models:/{name}@champion").predict(QUESTION)
                )
            except Exception as error:  # noqa: BLE001  (any failure is what this test looks for)
                faults.append(f"{type(error).__name__}: {error}")

    caller = threading.Thread(target=client)
    caller.start()
    try:
        for _ in range(3):
            _wait_for_answers(answers, faults)
            promote(scene.config(f"target=models:/{name}/1"))
            _wait_for_answers(answers, faults)
            rollback(scene.config(f"target=models:/{name}@champion"))
    finally:
        stop.set()
        caller.join()
    assert faults == []
    texts = {answer[0]["choices"][0]["message"]["content"] for answer in answers}
    assert texts == {"parrot-onnx: hello there", "parrot-transformers: hello there"}
    shapes = [shape(answer) for answer in answers]
    assert all(each == shapes[0] for each in shapes)


@pytest.mark.usefixtures("no_canary")
def test_webhook_wakes_watch_when_somebody_sets_candidate(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """MLflow's own server signs and delivers; the clock alone would take ten minutes."""
    monkeypatch.setenv("SLM_WEBHOOK_SECRET", "secret of the team")
    port = free_port()
    client = mlflow.MlflowClient()
    hook = client.create_webhook(
        name,
        f"http://127.0.0.1:{port}/",
        ["model_version_alias.created"],
        secret="secret of the team",
    )
    watching = ("promotion.watch.interval=600", f"promotion.watch.webhook_port={port}")
    config = scene.config(f"target=models:/{name}", "promotion=quality", *watching)
    watcher = threading.Thread(
        target=Watcher(config, RegistryClient(20), lambda *_: None).run, daemon=True
    )
    watcher.start()
    try:
        time.sleep(3)  # its first look finds nothing
        client.set_registered_model_alias(name, "candidate", "1")
        _until(lambda: "slm.candidate" in client.get_model_version(name, "1").tags, 60)
    finally:
        client.delete_webhook(hook.webhook_id)
    assert (
        client.get_model_version(name, "1")
        .tags["slm.candidate"]
        .startswith("promoted to @champion")
    )
    # the REST store gives text
    assert client.get_registered_model(name).aliases["champion"] in (1, "1")


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.usefixtures("no_canary")
def test_exported_version_answers_the_same_on_a_second_server(
    name: str,
    postgres: Postgres,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = tmp_path_factory.mktemp("carried") / "champion"
    before = mlflow.pyfunc.load_model(f"models:/{name}@champion").predict(QUESTION)
    done = export(scene.config(f"target=models:/{name}@champion", f"archive={folder}"))
    production = Server(
        postgres.database("production"), tmp_path_factory.mktemp("production")
    ).start()
    try:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", production.uri)
        mlflow.set_tracking_uri(production.uri)
        mlflow.set_registry_uri(production.uri)
        mlflow.set_experiment("releases")
        with mlflow.start_run():
            arrived = import_(scene.config(f"archive={folder}"))
        assert arrived.digest == done.digest and RegistryClient(10).aliases(name) == {}
        promote(scene.config(f"target=models:/{name}/{arrived.version}"))
        assert mlflow.pyfunc.load_model(f"models:/{name}@champion").predict(QUESTION) == before
    finally:
        production.kill()


@pytest.mark.slow
def test_canary_through_served_artifacts(name: str, tmp_path: Path) -> None:
    done = promote(scene.config(f"target=models:/{name}/1"))
    assert done.rows[0].canary == "passed"
    assert not list(tmp_path.iterdir())


def _wait_for_answers(answers: list[Any], faults: list[str]) -> None:
    """Two more: the first may have been under way before."""
    before = len(answers)
    _until(lambda: len(answers) > before + 1 or bool(faults))


def _until(holds: Any, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, f"not so after {seconds} s"
        time.sleep(0.1)
