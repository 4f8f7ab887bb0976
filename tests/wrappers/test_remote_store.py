"""Logging and loading through a tracking server that proxies its artifacts."""

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import requests

from steps.config.generation import GenerationConfig
from steps.config.onnx import ServingConfig
from steps.wrappers.log_onnx import log_onnx
from tests.conftest import BIN, clean_environment
from tests.wrappers.ports import free_port
from tests.wrappers.subjects import NAME, Folders

pytestmark = pytest.mark.server

USE = """
import sys, mlflow
model = mlflow.pyfunc.load_model(sys.argv[1])
print("ANSWER", model.predict({"prompt": "One, two,", "max_tokens": 4})[0])
"""


@pytest.fixture
def tracking_server(migrated_database: Path, tmp_path: Path) -> Iterator[str]:
    """URI of a tracking server whose artifacts only the server itself sees."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    command = [
        str(BIN / "mlflow"),
        "server",
        "--backend-store-uri",
        f"sqlite:///{migrated_database}",
        "--host",
        "127.0.0.1",
    ]
    command += [
        "--port",
        str(port),
        "--serve-artifacts",
        "--artifacts-destination",
        str(tmp_path / "hidden"),
        "--workers",
        "1",
    ]
    with (tmp_path / "server.log").open("w") as log:
        server = subprocess.Popen(
            command,
            cwd=tmp_path,
            env=clean_environment(),
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        deadline = time.monotonic() + 180
        while time.monotonic() < deadline:
            assert server.poll() is None, (tmp_path / "server.log").read_text()[-2000:]
            try:
                if requests.get(f"{url}/health", timeout=2).status_code == 200:
                    break
            except (requests.ConnectionError, requests.Timeout):
                time.sleep(0.5)
        yield url
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait(30)


def test_a_model_goes_up_and_comes_back_whole(
    tracking_server: str,
    smollm: Folders,
    shell: Callable[..., "subprocess.CompletedProcess[str]"],
    tmp_path: Path,
) -> None:
    import sys

    import mlflow

    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(tracking_server)
    try:
        experiment = mlflow.create_experiment("remote")
        with mlflow.start_run(experiment_id=experiment):
            uri = log_onnx(
                smollm.onnx("int4"),
                name=NAME,
                artifact_key="onnx-model",
                serving=ServingConfig(),
                generation=GenerationConfig(),
                tags={},
                metadata={},
            )
    finally:
        mlflow.set_tracking_uri(before)
    done = shell(sys.executable, "-c", USE, uri, cwd=tmp_path, MLFLOW_TRACKING_URI=tracking_server)
    assert "ANSWER" in done.stdout, done.stderr[-2000:]
    [checksums] = (tmp_path / "hidden").rglob("checksums.json")
    assert set(json.loads(checksums.read_text())) == {
        file.name for file in smollm.onnx("int4").iterdir()
    }
