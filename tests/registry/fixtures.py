"""Registries with parrots in them, as fixtures; and stores of their own."""

from collections.abc import Iterator
from dataclasses import dataclass

import mlflow
import pytest

from steps.registry import canary
from tests.registry import commands, scene


@dataclass(frozen=True)
class Pair:
    """Two logged models and the report about them."""

    transformers: str
    onnx: str
    report_uri: str


@pytest.fixture
def pair(tracking: str) -> Iterator[Pair]:  # noqa: ARG001
    """A good slow model and a fast small one, both passed; on a fresh SQLite store."""
    with mlflow.start_run():
        slow, fast = scene.log_model("transformers"), scene.log_model("onnx")
        uri = scene.log_report(
            [
                scene.candidate(slow, "transformers", scene.GOOD),
                scene.candidate(fast, "onnx", scene.FAST),
            ]
        )
    yield Pair(slow, fast, uri)


@pytest.fixture
def no_canary(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Let every canary pass at once, for tests that are about something else; the URIs it was asked
    about.
    """
    asked: list[str] = []

    def run(uri: str, expected_digest: str | None, _config: object) -> canary.Canary:
        asked.append(uri)
        return canary.Canary(uri, expected_digest or "", True, (), 0, 0.0, "none")

    monkeypatch.setattr(canary, "run", run)
    return asked


@pytest.fixture
def registered(pair: Pair, no_canary: list[str]) -> Pair:  # noqa: ARG001
    """Versions 1 (transformers, challenger) and 2 (onnx, champion)."""
    commands.register(pair.report_uri, scene.config())
    return pair


@pytest.fixture
def champion_is_slow(pair: Pair, no_canary: list[str]) -> Pair:  # noqa: ARG001
    """Version 1 (transformers) is champion; version 2 (onnx) is there without evidence."""
    uri = scene.report_by_a_run([scene.candidate(pair.transformers, "transformers", scene.GOOD)])
    commands.register(uri, scene.config())
    mlflow.MlflowClient().create_model_version(
        scene.NAME, f"models:/{pair.onnx}", model_id=pair.onnx
    )
    run_id = pair.report_uri.removeprefix("runs:/").partition("/")[0]
    mlflow.MlflowClient().set_tag(run_id, "slm.step", "put away")
    return pair
