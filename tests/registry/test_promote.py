"""Promotion of a named version, and the way back, on SQLite."""

# ruff: noqa: ARG001  (a fixture is asked for by name, also where only what it does counts)

import mlflow
import pytest

from steps.core.errors import ConfigError, StepError
from steps.registry.journal import name_of
from steps.registry.result import RefusedError
from tests.registry import commands, scene
from tests.registry.commands import promote, rollback
from tests.registry.fixtures import Pair
from tests.registry.scene import aliases, numbers


def held() -> list[int]:
    return scene.history().held("champion")


def test_named_version_becomes_champion(registered: Pair) -> None:
    done = promote(scene.config(f"target=models:/{scene.NAME}/1"))
    assert aliases() == {
        "transformers": 1,
        "onnx": 2,
        "champion": 1,
        "previous": 2,
        "challenger": 2,
    }
    assert done.entry == 2 and not done.forced
    assert held() == [2, 1]


def test_alias_names_a_version(registered: Pair) -> None:
    promote(scene.config(f"target=models:/{scene.NAME}@challenger"))
    assert aliases()["champion"] == 1


def test_same_promotion_twice_is_one_record(registered: Pair) -> None:
    promote(scene.config(f"target=models:/{scene.NAME}/1"))
    again = promote(scene.config(f"target=models:/{scene.NAME}/1"))
    assert again.moves == () and again.entry is None and "already" in again.reason
    assert numbers(name_of(scene.NAME)) == [1, 2]


def test_own_alias_keeps_a_line_of_its_own(registered: Pair) -> None:
    promote(scene.config(f"target=models:/{scene.NAME}/1", "alias=champion-edge"))
    promote(scene.config(f"target=models:/{scene.NAME}/2", "alias=champion-edge"))
    found = aliases()
    assert (found["champion-edge"], found["previous-edge"], found["champion"]) == (2, 1, 2)
    assert "previous" not in found


def test_dry_run_changes_nothing(registered: Pair, no_canary: list[str]) -> None:
    asked, before = len(no_canary), aliases()
    planned = promote(scene.config(f"target=models:/{scene.NAME}/1", "dry_run=true"))
    assert {move.alias: (move.before, move.after) for move in planned.moves} == {
        "champion": (2, 1),
        "previous": (None, 2),
        "challenger": (1, 2),
    }
    assert aliases() == before and numbers(name_of(scene.NAME)) == [1] and len(no_canary) == asked


@pytest.mark.usefixtures("no_canary")
def test_old_evidence_is_refused_unless_overruled(pair: Pair) -> None:
    uri = scene.report_by_a_run(
        [scene.candidate(pair.transformers, "transformers", scene.GOOD)], days_old=40
    )
    done = commands.register(uri, scene.config())
    assert done.moves == () and "the evidence is 40.0 days old" in done.reason
    with pytest.raises(
        RefusedError,
        match=(
            r"40\.0 days old, promotion\.max_evidence_age_days=30.*mlflow run \. -e"
            r" evaluate.*force=true"
        ),
    ):
        promote(scene.config(f"target=models:/{scene.NAME}/1", f"report_uri={uri}"))
    with pytest.raises(ConfigError, match="reason"):
        promote(scene.config(f"target=models:/{scene.NAME}/1", f"report_uri={uri}", "force=true"))
    done = promote(
        scene.config(
            f"target=models:/{scene.NAME}/1",
            f"report_uri={uri}",
            "force=true",
            "reason='the demo is today'",
        )
    )
    assert done.forced
    record = scene.history().entries[-1].record
    assert record.forced and record.reason == "the demo is today"
    assert "40.0 days old" in record.details["objections"][0]


@pytest.mark.usefixtures("no_canary")
def test_held_version_is_refused_with_the_gate(pair: Pair) -> None:
    uri = scene.report_by_a_run([scene.candidate(pair.onnx, "onnx", scene.FAST, decision="hold")])
    commands.register(uri, scene.config())
    with pytest.raises(
        RefusedError, match=r"verdict is 'hold': quality_floor=0\.48 \(limit 0\.1\)"
    ):
        promote(scene.config(f"target=models:/{scene.NAME}/1"))
    assert aliases() == {}


@pytest.mark.usefixtures("no_canary")
def test_version_without_evidence_names_the_command(pair: Pair) -> None:
    client = mlflow.MlflowClient()
    client.create_registered_model("stranger")
    client.create_model_version("stranger", f"models:/{pair.onnx}", model_id=pair.onnx)
    with pytest.raises(
        RefusedError,
        match=(
            r'no evidence; evaluate it: mlflow run .* evaluate\.candidates="\[models:/stranger/1\]"'
        ),
    ):
        promote(scene.config("target=models:/stranger/1"))
    done = promote(scene.config("target=models:/stranger/1", "force=true", "reason=trial"))
    assert done.forced and client.get_registered_model("stranger").aliases == {"champion": 1}


def test_evidence_about_other_bytes_is_never_overruled(registered: Pair) -> None:
    mlflow.MlflowClient().set_model_version_tag(scene.NAME, "1", "slm.digest", "sha256:other")
    with pytest.raises(RefusedError, match="no reason overrules"):
        promote(scene.config(f"target=models:/{scene.NAME}/1", "force=true", "reason=hurry"))
    assert aliases()["champion"] == 2


def test_changed_report_is_no_evidence(registered: Pair) -> None:
    mlflow.MlflowClient().set_model_version_tag(
        scene.NAME, "1", "slm.evidence_digest", "sha256:other"
    )
    client = mlflow.MlflowClient()
    run_id = registered.report_uri.removeprefix("runs:/").partition("/")[0]
    client.set_tag(run_id, "slm.step", "something else")
    with pytest.raises(RefusedError, match="was changed after it was recorded"):
        promote(scene.config(f"target=models:/{scene.NAME}/1"))


@pytest.mark.usefixtures("no_canary")
def test_without_a_version_the_policy_chooses(pair: Pair) -> None:
    client = mlflow.MlflowClient()
    client.create_registered_model(scene.NAME)
    done = promote(scene.config(f"target=models:/{scene.NAME}"))
    assert (row := commands.champion_of(done)) is not None and row.variant == "onnx"
    assert aliases()["champion"] == row.version


def test_unknown_targets_are_named(registered: Pair) -> None:
    with pytest.raises(StepError, match="no such version; there are: 1, 2"):
        promote(scene.config(f"target=models:/{scene.NAME}/9"))
    with pytest.raises(
        StepError, match="no such alias; there are: @challenger, @champion, @onnx, @transformers"
    ):
        promote(scene.config(f"target=models:/{scene.NAME}@prod"))
    with pytest.raises(StepError, match="no such registered model"):
        promote(scene.config("target=models:/nobody/1"))
    with pytest.raises(ConfigError, match=r"target='parrot:1': expected models:/"):
        promote(scene.config("target='parrot:1'"))
    with pytest.raises(ConfigError, match="alias='previous'"):
        promote(scene.config(f"target=models:/{scene.NAME}/1", "alias=previous"))


def test_rollback_returns_to_the_previous_champion(registered: Pair) -> None:
    promote(scene.config(f"target=models:/{scene.NAME}/1"))
    done = rollback(scene.config(f"target=models:/{scene.NAME}@champion"))
    assert done.kind == "rollback"
    assert aliases() == {
        "transformers": 1,
        "onnx": 2,
        "champion": 2,
        "previous": 1,
        "challenger": 1,
    }
    assert held() == [2, 1, 2]


def test_rollback_to_any_version_that_served(registered: Pair) -> None:
    promote(scene.config(f"target=models:/{scene.NAME}/1"))
    promote(scene.config(f"target=models:/{scene.NAME}/2"))
    rollback(scene.config(f"target=models:/{scene.NAME}@champion", "to=1"))
    assert aliases()["champion"] == 1 and aliases()["previous"] == 2
    with pytest.raises(RefusedError, match=r"version 7 never held this alias; these did: \[2, 1\]"):
        rollback(scene.config(f"target=models:/{scene.NAME}@champion", "to=7"))


def test_rollback_without_a_previous_is_refused(registered: Pair) -> None:
    with pytest.raises(
        RefusedError, match="only one @champion so far, version 2, so there is nothing to return to"
    ):
        rollback(scene.config(f"target=models:/{scene.NAME}@champion"))


def test_failing_canary_leaves_aliases_untouched(
    registered: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    from steps.registry import canary

    before = aliases()
    bad = canary.Check("completion shape", False, "it did not")
    monkeypatch.setattr(
        canary,
        "run",
        lambda uri, digest, _: canary.Canary(uri, digest, False, (bad,), 0, 0.0, "none"),
    )
    with pytest.raises(
        RefusedError,
        match=r"canary failed \(completion shape: it did not\)\. No reason overrules this",
    ):
        promote(scene.config(f"target=models:/{scene.NAME}/1", "force=true", "reason=hurry"))
    assert aliases() == before and numbers(name_of(scene.NAME)) == [1]


def test_rollback_brings_back_an_alias_that_was_deleted_by_hand(registered: Pair) -> None:
    client = mlflow.MlflowClient()
    before = aliases()["champion"]
    client.delete_registered_model_alias(scene.NAME, "champion")
    done = rollback(scene.config(f"target=models:/{scene.NAME}@champion"))
    assert aliases()["champion"] == before
    assert done.reason == "@champion was deleted; set again"


def test_rollback_of_an_alias_that_never_was(registered: Pair) -> None:
    with pytest.raises(RefusedError, match="the history knows no version that was @edge"):
        rollback(scene.config(f"target=models:/{scene.NAME}@edge"))
