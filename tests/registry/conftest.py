"""A registry with two judged parrots in it."""

from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests.registry import scene


@dataclass(frozen=True)
class Pair:
    """Two logged models and the report about them."""

    transformers: str
    onnx: str
    report_uri: str


@pytest.fixture
def pair(tracking: str) -> Iterator[Pair]:  # noqa: ARG001
    """A good slow model and a fast small one, both passed; on a fresh SQLite store."""
    import mlflow

    with mlflow.start_run():
        slow, fast = scene.log_model("transformers"), scene.log_model("onnx")
        uri = scene.log_report(
            [scene.judged(slow, "transformers", scene.GOOD), scene.judged(fast, "onnx", scene.FAST)]
        )
    yield Pair(slow, fast, uri)


@pytest.fixture
def no_canary(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Let every canary pass at once, for tests that are about something else; the URIs it was asked
    about.
    """
    from steps.registry import canary

    asked: list[str] = []

    def run(uri: str, expected_digest: str | None, _config: object) -> canary.Canary:
        asked.append(uri)
        return canary.Canary(uri, expected_digest or "", True, (), 0, 0.0, "none")

    monkeypatch.setattr(canary, "run", run)
    return asked
