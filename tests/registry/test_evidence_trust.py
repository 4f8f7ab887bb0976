"""Whose report may decide, and which of several: on SQLite."""

# ruff: noqa: ARG001  (a fixture is asked for by name, also where only what it does counts)

import json
import logging
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path

import mlflow
import pytest

from steps.core import tags
from steps.core.errors import StepError
from steps.pipeline import artifact_lookup
from steps.registry.client import RegistryClient
from steps.registry.result import RefusedError
from tests.registry import commands, scene
from tests.registry.commands import promote
from tests.registry.doubles import no_evaluation
from tests.registry.fixtures import Pair
from tests.registry.scene import aliases, key_pair, report_in, version_tags

TARGET = f"target=models:/{scene.NAME}/1"


@pytest.fixture
def held(pair: Pair, no_canary: list[str]) -> Pair:
    """Version 1 (onnx) is held by its evidence."""
    uri = scene.report_by_a_run(
        [scene.candidate(pair.onnx, "onnx", scene.FAST, decision="hold")], items=128, pack="core"
    )
    commands.register(uri, scene.config())
    mlflow.MlflowClient().set_tag(pair.report_uri.split("/")[1], "slm.step", "put away")
    return pair


def test_report_of_somebody_elses_experiment_promotes_nothing(
    held: Pair, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    forged = report_in(
        "mallory",
        [scene.candidate(held.onnx, "onnx", scene.FAST)],
        tmp_path,
        items=9999,
        pack="core",
    )
    with caplog.at_level(logging.WARNING), pytest.raises(RefusedError, match="verdict is 'hold'"):
        promote(scene.config(TARGET))
    (line,) = [record.getMessage() for record in caplog.records if "mallory" in record.getMessage()]
    assert forged.split("/")[1] in line and "promotion.evidence.experiments" in line
    mlflow.MlflowClient().set_registered_model_alias(scene.NAME, "candidate", "1")
    (verdict,) = commands.poll_once(scene.config(), RegistryClient(5), no_evaluation)
    assert not verdict.promoted and "verdict is 'hold'" in verdict.words
    assert "champion" not in aliases()


def test_policy_chooses_by_no_report_of_somebody_else(held: Pair, tmp_path: Path) -> None:
    report_in(
        "mallory",
        [scene.candidate(held.onnx, "onnx", scene.FAST)],
        tmp_path,
        items=9999,
        pack="core",
    )
    done = promote(scene.config(f"target=models:/{scene.NAME}"))
    assert done.moves == () and "no candidate passed" in done.reason


def test_report_that_is_named_must_be_trusted_too(held: Pair, tmp_path: Path) -> None:
    forged = report_in("mallory", [scene.candidate(held.onnx, "onnx", scene.FAST)], tmp_path)
    with pytest.raises(
        RefusedError,
        match=r"experiment 'mallory', which does not count.*promotion.evidence.experiments",
    ):
        promote(scene.config(TARGET, f"report_uri={forged}"))
    with pytest.raises(RefusedError, match="experiment 'mallory'"):
        commands.register(forged, scene.config())
    assert promote(
        scene.config(TARGET, f"report_uri={forged}", "force=true", "reason='checked by hand'")
    ).forced


def test_experiments_of_the_policy_count_and_no_others(held: Pair, tmp_path: Path) -> None:
    report_in(
        "release",
        [scene.candidate(held.onnx, "onnx", scene.FAST)],
        tmp_path,
        items=128,
        pack="core",
    )
    named = "promotion.evidence.experiments=[release]"
    promote(scene.config(TARGET, named))
    assert aliases()["champion"] == 1
    with pytest.raises(
        RefusedError,
        match=r"its recorded evidence .* in experiment 'release', which does not count",
    ):
        promote(
            scene.config(TARGET, "promotion.evidence.experiments=[other]", "alias=champion-edge")
        )


def test_output_tag_that_points_into_another_run_is_ignored(held: Pair, tmp_path: Path) -> None:
    forged = report_in(
        "mallory",
        [scene.candidate(held.onnx, "onnx", scene.FAST)],
        tmp_path,
        items=9999,
        pack="core",
    )
    with mlflow.start_run():
        mlflow.set_tags({"slm.step": "evaluate", "slm.model": scene.NAME, "slm.output": forged})
    with pytest.raises(RefusedError, match="verdict is 'hold'"):
        promote(scene.config(TARGET))


def test_smoke_run_takes_nothing_from_a_champion(pair: Pair, no_canary: list[str]) -> None:
    strong = scene.report_by_a_run(
        [scene.candidate(pair.onnx, "onnx", scene.FAST)], items=128, pack="core"
    )
    commands.register(strong, scene.config())
    before = mlflow.MlflowClient().get_model_version(scene.NAME, "1")
    smoke = scene.report_by_a_run(
        [scene.candidate(pair.onnx, "onnx", scene.FAST, decision="insufficient_evidence")], items=8
    )
    done = commands.register(smoke, scene.config())
    after = mlflow.MlflowClient().get_model_version(scene.NAME, "1")
    assert after.tags == before.tags and after.tags["slm.evaluation"] == strong
    assert after.description == before.description and "not for production" not in (
        after.description or ""
    )
    assert (
        done.moves == ()
        and "8 items" in done.reason
        and "128 items" in done.reason
        and strong in done.reason
    )
    promote(scene.config(TARGET, "alias=champion-edge"))
    assert version_tags(1)["slm.evaluation"] == strong and aliases()["champion-edge"] == 1
    with pytest.raises(
        RefusedError,
        match=r"the report \(pack smoke, 8 items\) is weaker than evidence that still counts",
    ):
        promote(scene.config(TARGET, "alias=champion-ci", f"report_uri={smoke}"))


def test_a_policy_of_other_gates_leaves_what_a_champion_says_alone(
    pair: Pair, no_canary: list[str]
) -> None:
    strong = scene.report_by_a_run(
        [scene.candidate(pair.onnx, "onnx", scene.FAST)], items=128, pack="core"
    )
    commands.register(strong, scene.config())
    before = mlflow.MlflowClient().get_model_version(scene.NAME, "1")
    mine = scene.config(
        "promotion.alias=champion-mine", "promotion.gates.absolute.quality_floor=0.01"
    )
    own = scene.report_by_a_run(
        [scene.candidate(pair.onnx, "onnx", scene.FAST)],
        items=40,
        pack="mine",
        gates=asdict(mine.promotion.gates),
    )
    done = commands.register(own, mine)
    assert aliases() | {"champion-mine": 1} == aliases(), done.reason
    after = mlflow.MlflowClient().get_model_version(scene.NAME, "1")
    assert after.tags["slm.evaluation"] == strong == before.tags["slm.evaluation"]
    assert after.tags["slm.verdict"] == before.tags["slm.verdict"]
    assert after.description == before.description
    assert scene.history().entries[-1].record.evidence == own  # by which its own alias was moved


def test_smoke_run_does_not_promote_what_stronger_evidence_holds(held: Pair) -> None:
    smoke = scene.report_by_a_run([scene.candidate(held.onnx, "onnx", scene.FAST)], items=5000)
    done = commands.register(smoke, scene.config())
    assert done.moves == () and aliases() == {}
    with pytest.raises(RefusedError, match="verdict is 'hold'"):
        promote(scene.config(TARGET))


def test_weaker_evidence_counts_once_the_stronger_is_too_old(
    pair: Pair, no_canary: list[str]
) -> None:
    strong = scene.report_by_a_run(
        [scene.candidate(pair.onnx, "onnx", scene.FAST, "hold")],
        items=128,
        pack="core",
        days_old=31,
    )
    commands.register(strong, scene.config())
    smoke = scene.report_by_a_run([scene.candidate(pair.onnx, "onnx", scene.FAST)], items=8)
    commands.register(smoke, scene.config())
    assert aliases()["champion"] == 1 and version_tags(1)["slm.evaluation"] == smoke


def test_newer_evidence_that_is_passed_over_is_named(
    pair: Pair, no_canary: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    strong = scene.report_by_a_run(
        [scene.candidate(pair.onnx, "onnx", scene.FAST)], items=128, pack="core"
    )
    newer = scene.report_by_a_run(
        [scene.candidate(pair.onnx, "onnx", scene.FAST)], items=30, pack="core"
    )
    with caplog.at_level(logging.WARNING):
        promote(scene.config(f"target=models:/{scene.NAME}"))
    assert version_tags(1)["slm.evaluation"] == strong
    words = (
        f"{newer} about 'parrot' is newer and weaker (pack core, 30 items) than {strong} (pack"
        " core, 128 items), which decides"
    )
    assert words in caplog.text and pair.report_uri not in caplog.text


def test_newer_evidence_of_the_same_strength_counts(held: Pair) -> None:
    scene.report_by_a_run([scene.candidate(held.onnx, "onnx", scene.FAST)], items=128, pack="core")
    promote(scene.config(TARGET))
    assert aliases()["champion"] == 1


def test_evidence_from_the_future_is_refused_by_name(held: Pair) -> None:
    uri = scene.report_by_a_run(
        [scene.candidate(held.onnx, "onnx", scene.FAST)], items=128, pack="core", days_old=-3
    )
    with pytest.raises(RefusedError, match=rf"{uri} is dated 3\.0 days in the future"):
        promote(scene.config(TARGET, f"report_uri={uri}"))
    with pytest.raises(RefusedError, match="verdict is 'hold'"):
        promote(scene.config(TARGET))
    recorded = version_tags(1)["slm.evaluation"]
    done = commands.register(uri, scene.config())
    assert done.moves == () and "in the future" in done.reason
    assert version_tags(1)["slm.evaluation"] == recorded


@pytest.mark.parametrize(
    ("age", "words"),
    [
        (timedelta(days=30), None),
        (timedelta(days=30, seconds=1), "30.0 days old"),
        (timedelta(minutes=-5), None),
        (timedelta(minutes=-5, seconds=-1), "in the future"),
    ],
)
def test_limits_of_age(pair: Pair, age: timedelta, words: str | None) -> None:
    from steps.registry import evidence

    report = evidence.read(pair.report_uri, RegistryClient(5), scene.places())
    said = report.untimely(30.0, report.created + age)
    assert said is None if words is None else words in (said or "")


def test_signed_report_counts_from_anywhere(held: Pair, tmp_path: Path) -> None:
    from steps.core import signatures

    private, public = key_pair(tmp_path, "ci")
    uri = report_in(
        "elsewhere",
        [scene.candidate(held.onnx, "onnx", scene.FAST)],
        tmp_path,
        items=128,
        pack="core",
    )
    trusting = scene.config(TARGET, f"promotion.evidence.signers=['{public}']")
    with pytest.raises(RefusedError, match="verdict is 'hold'"):
        promote(trusting)
    text = mlflow.artifacts.load_text(uri)
    client, run_id = mlflow.MlflowClient(), uri.split("/")[1]
    client.log_text(run_id, signatures.sign(text.encode(), private).decode(), "report.json.sig")
    promote(trusting)
    assert aliases()["champion"] == 1
    changed = json.loads(text) | {"seed": 7}
    client.log_text(run_id, json.dumps(changed), "report.json")
    with pytest.raises(RefusedError, match="signed by none of"):
        promote(
            scene.config(
                TARGET,
                f"promotion.evidence.signers=['{public}']",
                f"report_uri={uri}",
                "alias=champion-edge",
            )
        )


def test_signature_that_is_none_ends_nothing(held: Pair, tmp_path: Path) -> None:
    _, public = key_pair(tmp_path, "ci")
    client = mlflow.MlflowClient()
    for number, content in enumerate((b"\xff\xfe", b"", b"no base64", b"QUJD" * 400)):
        uri = report_in(
            "mallory",
            [scene.candidate(held.onnx, "onnx", scene.FAST)],
            tmp_path,
            items=9999,
            pack="core",
        )
        file = tmp_path / str(number) / "report.json.sig"
        file.parent.mkdir()
        file.write_bytes(content)
        client.log_artifact(uri.split("/")[1], str(file))
    binary = tmp_path / "report.json"
    binary.write_bytes(b"\xff\xfe\x00")
    client.log_artifact(uri.split("/")[1], str(binary))
    with pytest.raises(RefusedError, match="verdict is 'hold'"):
        promote(scene.config(TARGET, f"promotion.evidence.signers=['{public}']"))
    with pytest.raises(StepError, match="no report could be read there"):
        promote(scene.config(TARGET, f"report_uri={uri}"))


def test_chain_takes_no_run_of_somebody_elses_experiment(pair: Pair, tmp_path: Path) -> None:
    mine = scene.report_by_a_run([scene.candidate(pair.onnx, "onnx", scene.FAST)])
    report_in("mallory", [scene.candidate(pair.onnx, "onnx", scene.FAST)], tmp_path)
    wanted = {tags.STEP: "evaluate", tags.MODEL: scene.NAME}
    found = artifact_lookup.finished_runs(wanted, scene.config())
    assert found[0].info.run_id == mine.split("/")[1]
    assert {run.info.experiment_id for run in found} == {
        mlflow.get_experiment_by_name("test").experiment_id  # type: ignore[union-attr]
    }
    named = artifact_lookup.finished_runs(
        wanted, scene.config("promotion.evidence.experiments=[mallory]")
    )
    assert len(named) == len(found) + 1


def test_report_in_a_file_or_a_bucket_is_no_run(held: Pair, tmp_path: Path) -> None:
    file = tmp_path / "report.json"
    file.write_text(mlflow.artifacts.load_text(held.report_uri))
    with pytest.raises(StepError, match="is not an artifact of a run"):
        promote(scene.config(TARGET, f"report_uri='{file}'"))


@pytest.mark.parametrize(
    "broken",
    [
        '{"schema": "slm-promote/report/1"}',
        "[" * 100_000,
        '{"schema": "slm-promote/report/1", "created": "2026-01-01", "pack": []}',
        "7",
    ],
)
def test_broken_report_is_passed_over(held: Pair, broken: str) -> None:
    with mlflow.start_run() as run:
        mlflow.log_text(broken, "report.json")
        mlflow.set_tags(
            {
                "slm.step": "evaluate",
                "slm.model": scene.NAME,
                "slm.output": f"runs:/{run.info.run_id}/report.json",
            }
        )
    with pytest.raises(RefusedError, match="verdict is 'hold'"):
        promote(scene.config(TARGET))


def test_clock_of_the_tests_is_the_clock_of_the_reports(pair: Pair) -> None:
    from steps.registry import evidence

    report = evidence.read(pair.report_uri, RegistryClient(5), scene.places())
    assert report.untimely(30.0, datetime.now(UTC)) is None
