"""The entry points as a user runs them: what they print, what they end with, what their runs
hold.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlflow
import pytest

from tests.conftest import BIN, ROOT, Shell
from tests.registry import scene
from tests.registry.doubles import SECRET, WebhookEndpoint
from tests.registry.fixtures import Pair

Run = Callable[..., Any]


@pytest.fixture
def run(pair: Pair, tracking: str, shell: Shell, tmp_path: Path) -> Run:  # noqa: ARG001
    """Run an entry point against the store of this test."""

    def call(*words: str) -> Any:
        where = {"PYTHONPATH": str(ROOT), "MLFLOW_TRACKING_URI": tracking}
        return shell(str(BIN / "python"), "-m", *words, cwd=tmp_path, **where)

    return call


def test_history_needs_no_run_and_ends_with_clear_errors(run: Run) -> None:
    before = len(mlflow.search_runs(search_all_experiments=True))
    done = run("steps.history", "target=models:/nobody")
    assert (
        done.returncode == 1
        and "history: error: target=models:/nobody: no such registered model" in done.stderr
    )
    assert run("steps.history", "format=yaml").returncode == 2
    assert (
        "history: error: limit='0': expected a number of entries"
        in run("steps.history", "limit=0").stderr
    )
    assert run("steps.history", "target='nobody:3'").returncode == 2
    assert len(mlflow.search_runs(search_all_experiments=True)) == before


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_promote_rollback_history_export(run: Run, tmp_path: Path) -> None:
    # the experiment of the report, so that it counts
    name = ("model.registered_name=parrot", "experiment=test")
    first = run("steps.promote", *name, "target=models:/parrot")
    assert first.returncode == 0, first.stderr
    assert (
        "moved champion: – → 2" in first.stdout  # noqa: RUF001
        and "entry 1 of models:/parrot.history" in first.stdout
    )
    planned = run("steps.promote", *name, "target=models:/parrot/1", "dry_run=true")
    assert planned.returncode == 0 and "would move champion: 2 → 1" in planned.stdout
    assert (
        run(
            "steps.promote", *name, "target=models:/parrot/1", "reason='it answers better'"
        ).returncode
        == 0
    )
    refused = run("steps.promote", *name, "target=models:/parrot/9")
    assert (
        refused.returncode == 1
        and "promote: error: target=models:/parrot/9: no such version; there are: 1, 2"
        in refused.stderr
    )
    unforced = run("steps.promote", *name, "target=models:/parrot/1", "force=true")
    assert unforced.returncode == 2 and "reason" in unforced.stderr
    (tmp_path / "secret").write_text(SECRET)
    receiver = WebhookEndpoint(
        (500, 204)
    )  # the process waits for the second attempt before it ends
    told = (f"notifications.url={receiver.url}", f"notifications.secret_file={tmp_path}/secret")
    back = run("steps.rollback", *name, "target=models:/parrot@champion", *told)
    assert back.returncode == 0 and "moved champion: 1 → 2" in back.stdout
    assert [each["data"]["event"] for each in receiver.events()] == ["rolled_back", "rolled_back"]
    receiver.server.shutdown()
    shown = run("steps.history", "target=models:/parrot", "format=json")
    entries = json.loads(shown.stdout)["entries"]
    assert [(entry["kind"], entry["why"]) for entry in entries][1:] == [
        ("promote", "it answers better"),
        ("rollback", "back from version 1"),
    ]
    assert entries[1]["moves"][0] == {"alias": "champion", "before": 2, "after": 1}
    out = run("steps.export", *name, "target=models:/parrot@champion", f"archive={tmp_path}/out")
    assert out.returncode == 0 and (tmp_path / "out" / "manifest.json").is_file(), out.stderr
    statuses = {
        each.info.status
        for each in mlflow.MlflowClient().search_runs(
            [each.experiment_id for each in mlflow.search_experiments()]
        )
    }
    assert "RUNNING" not in statuses
    assert scene.NAME == "parrot"
