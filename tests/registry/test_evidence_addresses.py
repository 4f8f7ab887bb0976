"""Addresses that somebody wrote into a tag, a history entry or an experiment are not followed."""

# ruff: noqa: ARG001  (a fixture is asked for by name, also where only what it does counts)

import json
import logging
import re
from collections.abc import Iterator
from pathlib import Path

import mlflow
import pytest

from steps.core import bounded_read, tags
from steps.core.artifact_places import Places
from steps.core.bounded_read import TooMuchError
from steps.core.errors import StepError
from steps.evaluation.candidate import candidates_of
from steps.registry import approve, evidence, evidence_selection
from steps.registry.client import RegistryClient
from steps.registry.result import RefusedError
from tests.registry import commands, scene
from tests.registry.commands import promote
from tests.registry.doubles import Evaluator, no_evaluation
from tests.registry.fixtures import Pair
from tests.registry.listener import BYTES, Listener

RUN = "0123456789abcdef0123456789abcdef"


@pytest.fixture
def listener(monkeypatch: pytest.MonkeyPatch) -> Iterator[Listener]:
    """And a password that this process has for its own server."""
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "rosa")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "correct-horse-1")
    with Listener() as started:
        yield started


def bait(address: str, model_id: str, name: str = "bait") -> None:
    """A model of a free name, as every user may make one, that is a candidate."""
    client = mlflow.MlflowClient()
    client.create_registered_model(name)
    client.create_model_version(
        name,
        f"models:/{model_id}",
        tags={tags.EVALUATION: address, tags.EVIDENCE_DIGEST: "sha256:1"},
        model_id=model_id,
    )
    client.set_registered_model_alias(name, "candidate", "1")


ADDRESSES = (
    "mlflow-artifacts://{host}/x/report.json",
    "mlflow-artifacts:http://{host}/x/report.json",
    "http://{host}/report.json",
    "ftp://{host}/report.json",
    "s3://bucket/report.json",
    "file:///dev/zero",
    "file:///etc/hostname",
    "/etc/hostname",
    "models:/bait-0/1/MLmodel",
    f"runs:/{RUN}/../report.json",
    f"runs:/{RUN}/other/report.json",
    f"runs:/{RUN}/report.json?x=mlflow-artifacts://{{host}}",
    f"runs://databricks@{{host}}/{RUN}/report.json",
)


@pytest.mark.parametrize("policy", ["", "promotion.evidence.experiments=[test]"])
def test_address_on_a_version_is_not_followed(
    champion_is_slow: Pair, listener: Listener, monkeypatch: pytest.MonkeyPatch, policy: str
) -> None:
    """Neither is the look at the others held up: the parrot's own candidate gets its verdict."""
    opened: list[str] = []
    real = bounded_read.read

    def read(at: str, most_bytes: int) -> bytes:
        opened.append(at)
        return real(at, most_bytes)

    monkeypatch.setattr(bounded_read, "read", read)
    for number, address in enumerate(ADDRESSES):
        bait(address.format(host=listener.address), champion_is_slow.onnx, f"bait-{number}")
    scene.set_candidate(2)
    config, registry = scene.config(*filter(None, [policy])), RegistryClient(2)
    for number in range(len(ADDRESSES)):
        version = registry.version(f"bait-{number}", 1)
        assert version is not None
        choice = evidence_selection.choose(registry, version, config.promotion)
        assert "is not an artifact of a run" in choice.trouble
    verdicts = {one.uri: one.words for one in commands.poll_once(config, registry, Evaluator())}
    assert verdicts.pop(f"models:/{scene.NAME}/2").startswith("promoted")
    assert len(verdicts) == len(ADDRESSES)
    assert listener.asked == []
    assert opened and all(at.startswith(str(Path.cwd())) for at in opened)


@pytest.mark.parametrize("scheme", ["mlflow-artifacts", "http", "ftp"])
def test_run_whose_files_lie_elsewhere_is_not_read(
    champion_is_slow: Pair, listener: Listener, scheme: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Whoever makes an experiment chooses where its files lie; under the default policy the
    experiment of a version's logged model is trusted.
    """
    client = mlflow.MlflowClient()
    theirs = client.create_experiment("mallory", f"{scheme}://{listener.address}/x")
    run_id = client.create_run(theirs).info.run_id
    uri = f"runs:/{run_id}/report.json"
    for key, value in {
        "slm.step": "evaluate",
        "slm.model": "bait",
        "slm.output": uri,
    }.items():
        client.set_tag(run_id, key, value)
    client.set_terminated(run_id)
    own = client.create_logged_model(theirs, name="onnx", tags={tags.DIGEST: "sha256:1"}).model_id
    bait(uri, own)
    with caplog.at_level(logging.WARNING):
        (verdict,) = commands.poll_once(
            scene.config("target=models:/bait"), RegistryClient(2), no_evaluation
        )
    assert verdict.words == "held: no evaluation in this test"
    version = RegistryClient(2).version("bait", 1)
    assert version is not None
    choice = evidence_selection.choose(RegistryClient(2), version, scene.config().promotion)
    assert re.search("its files lie at .*promotion.evidence.experiments", choice.trouble)
    assert f"{uri} about 'bait' is ignored: its files lie at" in caplog.text
    with pytest.raises(StepError, match="its files lie at"):
        promote(scene.config("target=models:/bait/1", f"report_uri={uri}"))
    assert listener.asked == []


def test_model_whose_files_lie_elsewhere_is_neither_evaluated_nor_moved_to(
    champion_is_slow: Pair, listener: Listener
) -> None:
    client = mlflow.MlflowClient()
    theirs = client.create_experiment("mallory", f"mlflow-artifacts://{listener.address}/x")
    model_id = client.create_logged_model(
        theirs, name="onnx", tags={"slm.digest": "sha256:1", "slm.variant": "onnx"}
    ).model_id
    uri = scene.report_by_a_run([scene.candidate(model_id, "onnx", scene.FAST)], items=128)
    with pytest.raises(StepError, match=r"models:/parrot/\d: its files lie at .* not followed"):
        commands.register(uri, scene.config())
    for candidate in (f"models:/{model_id}", f"models:/{scene.NAME}/3"):
        with pytest.raises(StepError, match="its files lie at"):
            candidates_of([candidate], None, scene.config())
    assert listener.asked == []


def test_source_of_a_version_is_looked_at_too(pair: Pair, listener: Listener) -> None:
    """Its logged model lies well; its source, which MLflow fetches, does not."""
    client = mlflow.MlflowClient()
    client.create_registered_model("bait")
    source = f"mlflow-artifacts://{listener.address}/x"
    client.create_model_version("bait", source, model_id=pair.onnx)
    with pytest.raises(StepError, match="its files lie at"):
        candidates_of(["models:/bait/1"], None, scene.config())
    assert listener.asked == []


def test_approver_follows_no_address_of_a_history_entry(
    champion_is_slow: Pair, listener: Listener
) -> None:
    record = {
        "id": "forged",
        "kind": "waiting",
        "moves": [],
        "actor": "mallory",
        "reason": "please",
        "evidence": f"mlflow-artifacts://{listener.address}/x/report.json",
        "evidence_digest": "sha256:1",
        "details": {"version": 2, "alias": "champion", "digest": "sha256:1"},
    }
    mlflow.MlflowClient().create_model_version(
        f"{scene.NAME}.history",
        f"models:/{scene.NAME}/2",
        tags={
            "slm.record": json.dumps(record),
            "slm.record_id": "forged",
            "slm.settled": "true",
        },
    )
    wanted = scene.config(
        f"target=models:/{scene.NAME}/2", "promotion.approvals=1", "reason=ok", "dry_run=true"
    )
    with pytest.raises(RefusedError, match="is not an artifact of a run"):
        approve.decide("approve", wanted, registry=RegistryClient(2))
    assert listener.asked == []


def test_report_that_is_too_large_is_refused_with_the_figure(
    champion_is_slow: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evidence, "LARGEST_REPORT", 100)
    with pytest.raises(StepError, match="has more than 100 bytes"):
        evidence.read(champion_is_slow.report_uri, RegistryClient(2), scene.places())


def test_file_that_comes_slowly_or_is_too_large_ends_the_process_that_fetches_it(
    tracking: str, listener: Listener, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the next file is fetched all the same."""
    assert bounded_read.read(f"http://{listener.address}/whole", len(BYTES)) == BYTES
    with pytest.raises(TooMuchError, match=f"has more than {len(BYTES) - 1} bytes"):
        bounded_read.read(f"http://{listener.address}/whole", len(BYTES) - 1)
    monkeypatch.setattr(bounded_read, "SECONDS", 1)
    with pytest.raises(TooMuchError, match="did not come within 1 s"):
        bounded_read.read(f"http://{listener.address}/drip", 1_000_000)
    monkeypatch.setattr(bounded_read, "SECONDS", 60)
    assert bounded_read.read(f"http://{listener.address}/whole", 100) == BYTES


def test_local_file_is_a_regular_one(tmp_path: Path) -> None:
    import os

    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("/etc/hostname")
    for path in (tmp_path / "pipe", tmp_path / "link", tmp_path, Path("/dev/zero")):
        with pytest.raises(OSError, match=r"regular file|symbolic links|directory"):
            bounded_read.read(str(path), 100)


def test_folder_that_is_a_link_lies_where_it_leads(tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "out").symlink_to("/etc")
    places = Places.around([str(tmp_path / "store" / "0")], "sqlite:///x.db")
    assert places.holds(str(tmp_path / "store" / "in"))
    assert not places.holds(str(tmp_path / "store" / "out"))
