"""MLflow builds the environment of conda.yaml from nothing and runs a step in it."""

import shutil
from pathlib import Path

import pytest

from tests.conftest import ROOT, Shell

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


def test_a_fresh_environment_runs_a_step(shell: Shell, tmp_path: Path) -> None:
    # virtualenv takes its interpreter from pyenv and its packages through pip; uv needs neither
    manager = "virtualenv" if shutil.which("pyenv") else "uv"
    words = (
        "mlflow",
        "run",
        str(ROOT),
        "-e",
        "fetch_model",
        "--env-manager",
        manager,
        "-P",
        "model=tiny_phi3",
    )
    done = shell(*words, cwd=tmp_path, timeout=1700, MLFLOW_ENV_ROOT=str(tmp_path / "environments"))
    printed = done.stdout + done.stderr
    assert done.returncode == 0, printed[-4000:]
    assert "fetch_model for tiny-phi3 → runs:/" in printed
    made = list((tmp_path / "environments").rglob("site-packages/mlflow/__init__.py"))
    assert made, "the step ran in another environment than the one that was built"
