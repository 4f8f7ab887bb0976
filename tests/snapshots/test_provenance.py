"""Snapshots behind the URIs of runs, in a real store."""

import mlflow
import pytest

from steps.core.errors import StepError
from steps.pipeline import artifact_lookup
from steps.snapshots import provenance
from steps.snapshots.manifest import Snapshot

pytestmark = pytest.mark.usefixtures("tracking")


def logged(text: str, name: str = "snapshot.json") -> str:
    """URI of a file on a run of its own."""
    with mlflow.start_run() as run:
        mlflow.log_text(text, name)
    return f"runs:/{run.info.run_id}/{name}"


@pytest.mark.parametrize("text", ["{}", "no json", '{"schema": "slm-promote/report/1"}'])
def test_what_is_no_snapshot_is_one_error_that_names_the_key(text: str) -> None:
    uri = logged(text, "report.json")
    with pytest.raises(
        StepError,
        match=rf"snapshot_uri='{uri}': expected runs:/<run>/snapshot\.json .*leave it out",
    ):
        provenance.read_snapshot(uri)


def test_a_branch_and_its_commit_are_the_same_input() -> None:
    uris = [
        logged(Snapshot("hub", "a/b", asked, "c" * 40, "MIT", ()).to_json())
        for asked in ("main", "c" * 40)
    ]
    assert len({artifact_lookup.input_digest("snapshot_uri", uri) for uri in uris}) == 1
