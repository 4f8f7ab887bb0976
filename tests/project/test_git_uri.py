"""`mlflow run` on a git URL, from an empty folder."""

import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient

from tests.conftest import ROOT, Shell, clean_environment

pytestmark = pytest.mark.slow


@pytest.fixture
def repository(tmp_path: Path) -> Iterator[tuple[str, str]]:
    """URL of this project behind a git daemon on loopback, and the commit that it is at."""
    served = tmp_path / "served"
    subprocess.run(
        ["git", "clone", "-q", "--bare", str(ROOT), str(served / "slm-promote.git")], check=True
    )
    commit = subprocess.run(
        ["git", "-C", str(ROOT), "rev-parse", "HEAD"], check=True, capture_output=True, text=True
    ).stdout.strip()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = [
        "git",
        "daemon",
        "--export-all",
        "--reuseaddr",
        "--listen=127.0.0.1",
        f"--port={port}",
        f"--base-path={served}",
        str(served),
    ]
    daemon = subprocess.Popen(words, env=clean_environment(), start_new_session=True)
    try:
        deadline = time.monotonic() + 20
        while subprocess.run(
            ["git", "ls-remote", "-q", f"git://127.0.0.1:{port}/slm-promote.git"],
            capture_output=True,
        ).returncode:
            assert time.monotonic() < deadline, "git daemon did not start"
            time.sleep(0.1)
        yield f"git://127.0.0.1:{port}/slm-promote.git", commit
    finally:
        import os
        import signal

        os.killpg(daemon.pid, signal.SIGTERM)
        daemon.wait(10)


def test_the_whole_chain_from_a_git_url(
    repository: tuple[str, str], shell: Shell, tmp_path: Path
) -> None:
    url, commit = repository
    folder = tmp_path / "empty"
    folder.mkdir()
    words = (
        "-v",
        commit,
        "--env-manager",
        "local",
        "-P",
        "model=tiny_phi3",
        "-P",
        "overrides=evaluate=smoke",
    )
    done = shell("mlflow", "run", url, *words, cwd=folder, timeout=900)
    assert done.returncode == 0, (done.stdout + done.stderr)[-6000:]
    uri = f"sqlite:///{folder}/mlflow.db"
    client = MlflowClient(uri, uri)
    versions = client.search_model_versions("name='tiny-phi3'")
    assert sorted(version.tags["slm.variant"] for version in versions) == ["onnx", "transformers"]
    runs = client.search_runs(["0"])
    assert len(runs) == 6
    for run in runs:
        assert run.info.status == "FINISHED"
        assert run.data.tags["mlflow.source.git.commit"] == commit, run.data.tags["slm.step"]
        assert run.data.tags["mlflow.source.git.repoURL"] == url, run.data.tags["slm.step"]
        assert run.data.tags["slm.command"].startswith(f"mlflow run {url} -v {commit} "), (
            run.data.tags["slm.command"]
        )
