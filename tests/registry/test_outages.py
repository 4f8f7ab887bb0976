"""A server that is away is said to be away, and what was done before stays done; on SQLite."""

import mlflow
import pytest
from mlflow.exceptions import MlflowException

from steps.core import bounded_read
from steps.registry.client import RegistryClient, ServerUnavailableError
from tests.registry import commands, scene
from tests.registry.commands import promote
from tests.registry.fixtures import Pair
from tests.registry.scene import aliases


def away(*_: object, **__: object) -> None:
    raise MlflowException(
        "API request failed with exception: Max retries exceeded: connection refused"
    )


@pytest.mark.usefixtures("no_canary")
def test_evidence_that_nobody_hands_out_is_not_missing_evidence(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    commands.register(pair.report_uri, scene.config())
    monkeypatch.setattr(bounded_read, "read", away)
    with pytest.raises(
        ServerUnavailableError,
        match=r"reading runs:/.*if a move had begun, the next run finishes it",
    ):
        promote(scene.config(f"target=models:/{scene.NAME}/1"), registry=RegistryClient(0.1))


@pytest.mark.usefixtures("no_canary")
def test_result_that_cannot_be_kept_does_not_undo_the_move(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mlflow, "log_dict", away)
    with mlflow.start_run():
        done = commands.register(pair.report_uri, scene.config())
    assert done.entry == 1 and aliases()["champion"] == 2
