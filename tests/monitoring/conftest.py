"""Fixtures of the monitor's tests."""

import mlflow
import pytest

from tests.monitoring import scene as monitored
from tests.registry import commands, scene
from tests.registry.fixtures import Pair, no_canary, pair

__all__ = ["no_canary", "pair", "served"]


@pytest.fixture
def served(pair: Pair, no_canary: list[str]) -> Pair:  # noqa: ARG001
    """Version 2 (onnx) is champion, version 1 (transformers) was before it; both have evidence with
    answers and timings.
    """
    run_id = pair.report_uri.removeprefix("runs:/").partition("/")[0]
    mlflow.MlflowClient().set_tag(run_id, "slm.step", "put away")
    slow = monitored.candidate(pair.transformers, "transformers", scene.GOOD)
    fast = monitored.candidate(pair.onnx, "onnx", scene.FAST)
    commands.register(monitored.log_report([slow]), scene.config())
    commands.register(monitored.log_report([slow, fast]), scene.config())
    assert scene.aliases()["champion"] == 2
    return pair
