"""What runs and experiments of strangers do to a promotion by evidence: nothing, however many they
are and wherever their files lie.
"""

# ruff: noqa: ARG001  (a fixture is asked for by name, also where only what it does counts)

import logging
import time
from pathlib import Path
from typing import Any

import mlflow
import pytest

from steps.core import signatures
from steps.core.artifact_places import Places
from steps.pipeline import experiments
from tests.core import keys
from tests.registry import registries, scene
from tests.registry.commands import promote
from tests.registry.fixtures import Pair
from tests.registry.scene import aliases, report_in

TARGET = f"target=models:/{scene.NAME}/1"


@pytest.fixture
def signed(pair: Pair, no_canary: list[str], tmp_path: Path) -> str:
    """Version 1, with a signed report in an experiment that is no promoter's; the override that
    names the key.
    """
    client = mlflow.MlflowClient()
    client.set_tag(pair.report_uri.split("/")[1], "slm.step", "put away")
    private, public = keys.make(tmp_path, "ci")
    uri = report_in("ci", [scene.candidate(pair.onnx, "onnx", scene.FAST)], tmp_path)
    text = mlflow.artifacts.load_text(uri)
    client.log_text(
        uri.split("/")[1], signatures.sign(text.encode(), Path(private)).decode(), "report.json.sig"
    )
    client.create_registered_model(scene.NAME)
    client.create_model_version(scene.NAME, f"models:/{pair.onnx}", model_id=pair.onnx)
    return f"promotion.evidence.signers=['{public}']"


def finished_run(experiment_id: str) -> str:
    """A run that says it is a finished evaluation of the parrot, and holds nothing."""
    client = mlflow.MlflowClient()
    run_id = str(client.create_run(experiment_id).info.run_id)
    for key, value in {
        "slm.step": "evaluate",
        "slm.model": scene.NAME,
        "slm.output": f"runs:/{run_id}/report.json",
    }.items():
        client.set_tag(run_id, key, value)
    client.set_terminated(run_id)
    return run_id


@pytest.mark.parametrize(
    "location",
    [
        "s3://bucket/x",
        "gs://bucket/x",
        "weird://x",
        "http://127.0.0.1:1/api/2.0/mlflow-artifacts/artifacts/x",
    ],
)
def test_files_of_a_stranger_are_fetched_from_nowhere_else(
    signed: str, location: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = mlflow.MlflowClient()
    run_id = finished_run(client.create_experiment("mallory", artifact_location=location))
    asked: list[str] = []
    real = mlflow.MlflowClient.list_artifacts

    def listing(self: mlflow.MlflowClient, run: str, *given: Any, **named: Any) -> Any:
        asked.append(run)
        return real(self, run, *given, **named)

    monkeypatch.setattr(mlflow.MlflowClient, "list_artifacts", listing)
    promote(scene.config(TARGET, signed, "promotion.retry_seconds=1"))
    assert aliases()["champion"] == 1 and run_id not in asked


def test_run_that_cannot_be_read_is_passed_over_by_name(
    signed: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    run_id = finished_run(
        mlflow.create_experiment("mallory", artifact_location=str(tmp_path / "mallory"))
    )
    real = mlflow.MlflowClient.list_artifacts

    def listing(self: mlflow.MlflowClient, run: str, *given: Any, **named: Any) -> Any:
        if run == run_id:
            raise ModuleNotFoundError("No module named 'boto3'")
        return real(self, run, *given, **named)

    monkeypatch.setattr(mlflow.MlflowClient, "list_artifacts", listing)
    with caplog.at_level(logging.WARNING):
        promote(scene.config(TARGET, signed))
    assert aliases()["champion"] == 1
    assert f"{run_id}/report.json is ignored: it cannot be read (ModuleNotFoundError" in caplog.text


def test_signed_report_counts_behind_any_number_of_runs(signed: str, tmp_path: Path) -> None:
    place = mlflow.create_experiment("mallory", artifact_location=str(tmp_path / "mallory"))
    for _ in range(22):
        finished_run(place)
    promote(scene.config(TARGET, signed))
    assert aliases()["champion"] == 1


def test_thousand_experiments_of_others_hide_none(
    signed: str, tracking: str, tmp_path: Path
) -> None:
    registries.experiments(tracking, 1001, int(time.time() * 1000) + 1000)
    assert [*experiments.named(["ci", "no such"], mlflow.MlflowClient()).values()] == ["ci"]
    promote(scene.config(TARGET, signed, "dry_run=true"))
    promote(scene.config(TARGET, "promotion.evidence.experiments=[ci]"))
    assert aliases()["champion"] == 1


@pytest.mark.parametrize(
    ("uri", "held"),
    [
        ("mlflow-artifacts:/7/abc/artifacts", True),
        ("mlflow-artifacts://127.0.0.1:5000/7/abc/artifacts", False),
        ("mlflow-artifacts:/7?x=1", False),
        ("s3://models/mlflow/7/abc/artifacts", True),
        ("s3://models/elsewhere", False),
        ("s3://models/mlflow/../elsewhere", False),
        ("s3://models/mlflow/%2e%2e/elsewhere", False),
        ("s3://models.example.org/mlflow/7", False),
        ("http://models/mlflow/7", False),
        ("/etc/passwd", False),
        ("file:///srv/mlflow/7", True),
        ("/srv/mlflow/7", True),
        ("http://[", False),
    ],
)
def test_places_of_artifacts(uri: str, held: bool) -> None:
    places = Places.around(["s3://models/mlflow/0", "/srv/mlflow/0"], "https://mlflow.example.org")
    assert places.holds(uri) is held


def test_server_that_hands_out_no_files_has_no_proxy() -> None:
    assert not Places.around([], "sqlite:///mlflow.db").holds("mlflow-artifacts:/7")
