"""Fixtures of the monitor's tests."""

import shutil
from dataclasses import dataclass
from pathlib import Path

import mlflow
import pytest

from steps.registry import canary
from tests.monitoring import scene as monitored
from tests.registry import commands, scene
from tests.registry.fixtures import no_canary

__all__ = ["evidence", "no_canary", "served"]


@dataclass(frozen=True)
class Evidence:
    """A database with two versions and their evidence.

    Attributes:
        database: to be copied.
        transformers: logged model of version 1.
        onnx: logged model of version 2.
    """

    database: Path
    transformers: str
    onnx: str


def passed(uri: str, expected_digest: str | None, _config: object) -> canary.Canary:
    """A canary that passes at once."""
    return canary.Canary(uri, expected_digest or "", True, (), 0, 0.0, "none")


@pytest.fixture(scope="session")
def evidence(migrated_database: Path, tmp_path_factory: pytest.TempPathFactory) -> Evidence:
    """Version 2 (onnx) is champion, version 1 (transformers) was before it; both have evidence with
    answers and timings. Made once: it takes seconds.
    """
    home = tmp_path_factory.mktemp("evidence")
    database = home / "mlflow.db"
    shutil.copy(migrated_database, database)
    before, uri = mlflow.get_tracking_uri(), f"sqlite:///{database}"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(canary, "run", passed)
        patch.setenv("MLFLOW_TRACKING_URI", uri)
        mlflow.set_tracking_uri(uri)
        mlflow.set_registry_uri(uri)
        try:
            place = mlflow.create_experiment("test", artifact_location=str(home / "artifacts"))
            mlflow.set_experiment(experiment_id=place)
            with mlflow.start_run():
                models = scene.log_model("transformers"), scene.log_model("onnx")
            slow = monitored.candidate(models[0], "transformers", scene.GOOD)
            fast = monitored.candidate(models[1], "onnx", scene.FAST)
            commands.register(monitored.log_report([slow]), scene.config())
            commands.register(monitored.log_report([slow, fast]), scene.config())
            assert scene.aliases()["champion"] == 2
        finally:
            mlflow.set_tracking_uri(before)
            mlflow.set_registry_uri(before)
    return Evidence(database, *models)


@pytest.fixture
def served(
    evidence: Evidence,
    tracking: str,  # noqa: ARG001 - puts the process's URIs back
    no_canary: list[str],  # noqa: ARG001
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Evidence:
    """A store of the test's own with these versions."""
    shutil.copy(evidence.database, tmp_path / "served.db")
    uri = f"sqlite:///{tmp_path / 'served.db'}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    mlflow.set_tracking_uri(uri)
    mlflow.set_registry_uri(uri)
    mlflow.set_experiment("test")
    return evidence
