"""No alias moves for a stale report, a twin, a deleted entry or over a person's move; on SQLite."""

# ruff: noqa: ARG001  (a fixture is asked for by name, also where only what it does counts)

from pathlib import Path

import mlflow
import pytest

from steps.core.errors import ConfigError, StepError
from steps.registry import alias_plan, canary
from steps.registry.alias_store import AliasStore, LostRaceError
from steps.registry.client import RegistryClient
from steps.registry.journal import Journal, name_of
from steps.registry.record import Record, new_id
from tests.registry import commands, scene
from tests.registry.commands import promote, rollback
from tests.registry.fixtures import Pair
from tests.registry.scene import aliases, numbers


def store() -> AliasStore:
    return AliasStore(RegistryClient(5), scene.NAME)


def move(seen: Journal, number: int) -> None:
    moves = alias_plan.moves(seen.aliases, alias_plan.succeed(seen.aliases, "champion", number))
    store().commit(
        seen, Record(id=new_id(), kind="promote", moves=moves, actor="somebody", reason="test")
    )


def set_by_hand(alias: str, number: int) -> None:
    mlflow.MlflowClient().set_registered_model_alias(scene.NAME, alias, str(number))


def newer_report(pair: Pair, *, with_champion: bool) -> str:
    with mlflow.start_run():
        newer = scene.log_model("onnx", name="newer")
        judged = [scene.candidate(newer, "onnx", {**scene.FAST, "quality/score": 0.9})]
        if with_champion:
            judged.append(scene.candidate(pair.onnx, "onnx", scene.FAST, role="incumbent"))
        return scene.log_report(judged)


def test_twin_that_serves_is_never_deleted(registered: Pair) -> None:
    mlflow.MlflowClient().create_model_version(
        scene.NAME, f"models:/{registered.onnx}", model_id=registered.onnx
    )
    promote(scene.config(f"target=models:/{scene.NAME}/3"))
    assert numbers() == [1, 2, 3] and aliases()["champion"] == 3
    commands.register(registered.report_uri, scene.config())
    assert numbers() == [1, 2, 3] and aliases()["champion"] == 3


def test_alias_does_not_move_to_a_version_that_is_gone(registered: Pair) -> None:
    seen = store().open()
    mlflow.MlflowClient().delete_model_version(scene.NAME, "1")
    with pytest.raises(StepError, match="version 1 was deleted"):
        move(seen, 1)
    assert aliases()["champion"] == 2


def test_version_deleted_under_an_unfinished_move_takes_no_alias_with_it(registered: Pair) -> None:
    from tests.registry.faults import FaultyClient, KilledError

    probe = FaultyClient()
    promote(scene.config(f"target=models:/{scene.NAME}/1"), registry=probe)
    promote(scene.config(f"target=models:/{scene.NAME}/2"))
    at = next(index for index, made in enumerate(probe.made, 1) if made.startswith("setting"))
    with pytest.raises(KilledError):
        promote(scene.config(f"target=models:/{scene.NAME}/1"), registry=FaultyClient(at))
    mlflow.MlflowClient().delete_model_version(scene.NAME, "1")
    seen = store().open()
    assert aliases()["champion"] == 2 == seen.aliases["champion"]


def test_report_that_did_not_see_the_champion_cannot_dethrone_it(registered: Pair) -> None:
    done = commands.register(newer_report(registered, with_champion=False), scene.config())
    assert aliases()["champion"] == 2 and aliases()["onnx"] == 3
    assert "the report did not see @champion (version 2); evaluate again" in done.reason
    commands.register(newer_report(registered, with_champion=True), scene.config())
    assert aliases()["champion"] == 4


def test_variant_alias_goes_to_no_version_that_this_report_did_not_judge(registered: Pair) -> None:
    client = mlflow.MlflowClient()
    with mlflow.start_run():
        other = scene.log_model("onnx", name="broken")
    tags = {"slm.variant": "onnx", "slm.verdict": "promote"}
    client.create_model_version(scene.NAME, f"models:/{other}", model_id=other, tags=tags)
    commands.register(registered.report_uri, scene.config())
    assert aliases()["onnx"] == 2


def test_incumbent_that_fails_the_canary_is_no_challenger(
    registered: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(uri: str, digest: str | None, _: object) -> canary.Canary:
        passed = not uri.endswith("/2")
        return canary.Canary(
            uri,
            digest or "",
            passed,
            (canary.Check("completion shape", passed, ""),),
            0,
            0.0,
            "none",
        )

    monkeypatch.setattr(canary, "run", run)
    commands.register(newer_report(registered, with_champion=True), scene.config())
    found = aliases()
    assert (found["champion"], found["previous"]) == (3, 2) and found["challenger"] != 2


def test_loser_stays_a_loser_when_the_winners_entry_is_deleted(registered: Pair) -> None:
    with mlflow.start_run():
        third = scene.log_model("onnx", name="third")
    mlflow.MlflowClient().create_model_version(scene.NAME, f"models:/{third}", model_id=third)
    seen, late = store().open(), store()
    late.aliases = lambda: dict(seen.aliases)  # type: ignore[method-assign]  # it looked a moment before the other one wrote
    move(seen, 1)
    moves = alias_plan.moves(seen.aliases, alias_plan.succeed(seen.aliases, "champion", 3))
    with pytest.raises(LostRaceError, match="came first"):
        late.commit(
            seen, Record(id=new_id(), kind="promote", moves=moves, actor="late", reason="test")
        )
    assert scene.history().entries[-1].settled == "lost"
    mlflow.MlflowClient().delete_model_version(name_of(scene.NAME), "2")
    store().open()
    assert aliases()["champion"] == 1


def test_unfinished_entry_behind_a_hole_is_not_finished(registered: Pair) -> None:
    seen, client = store().open(), mlflow.MlflowClient()
    move(seen, 1)
    with mlflow.start_run():
        third = scene.log_model("onnx", name="third")
    client.create_model_version(scene.NAME, f"models:/{third}", model_id=third)
    moves = alias_plan.moves(seen.aliases, alias_plan.succeed(seen.aliases, "champion", 3))
    store().append(
        Record(
            id=new_id(),
            kind="promote",
            moves=moves,
            actor="killed before it saw that it lost",
            reason="test",
        )
    )
    client.delete_model_version(name_of(scene.NAME), "2")
    store().open()
    journal = scene.history()
    assert aliases()["champion"] == 1 == journal.aliases["champion"]
    assert journal.entries[-1].record.kind == "observed"


def test_move_by_hand_during_the_canary_is_kept_and_noted(
    registered: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    with mlflow.start_run():
        third = scene.log_model("onnx", name="third")
    mlflow.MlflowClient().create_model_version(scene.NAME, f"models:/{third}", model_id=third)

    def run(uri: str, digest: str | None, _: object) -> canary.Canary:
        set_by_hand("champion", 3)
        return canary.Canary(uri, digest or "", True, (), 0, 0.0, "none")

    monkeypatch.setattr(canary, "run", run)
    with pytest.raises(LostRaceError, match=r"champion 2 → 3, observed by another client"):
        promote(scene.config(f"target=models:/{scene.NAME}/1"))
    assert aliases()["champion"] == 3
    assert [entry.record.kind for entry in scene.history().entries] == ["register", "observed"]


def test_rollback_after_a_move_by_hand_goes_one_back(registered: Pair) -> None:
    promote(scene.config(f"target=models:/{scene.NAME}/1"))
    with mlflow.start_run():
        third = scene.log_model("onnx", name="third")
    tags = {"slm.digest": mlflow.MlflowClient().get_logged_model(third).tags["slm.digest"]}
    mlflow.MlflowClient().create_model_version(
        scene.NAME, f"models:/{third}", model_id=third, tags=tags
    )
    set_by_hand("champion", 3)
    rollback(scene.config(f"target=models:/{scene.NAME}@champion"))
    assert aliases()["champion"] == 1


def test_report_of_other_gates_moves_nothing(registered: Pair) -> None:
    import dataclasses
    import json

    config = scene.config()
    gates = json.loads(json.dumps(dataclasses.asdict(config.promotion.gates)))
    with mlflow.start_run() as run:
        judged = [
            scene.candidate(
                registered.transformers, "transformers", {**scene.GOOD, "quality/score": 0.99}
            )
        ]
        uri = scene.log_report(
            [*judged, scene.candidate(registered.onnx, "onnx", scene.FAST)], gates=gates
        )
    assert run is not None
    strict = scene.config("promotion.gates.absolute.quality_floor=0.9")
    done = commands.register(uri, strict)
    assert (
        done.moves == ()
        and "judged by other gates (absolute.quality_floor=0.15 then, 0.9 now)" in done.reason
    )
    with pytest.raises(StepError, match=r"judged by other gates .*evaluate it again"):
        promote(
            scene.config(
                f"target=models:/{scene.NAME}/1", "promotion.gates.absolute.quality_floor=0.9"
            )
        )
    assert promote(scene.config(f"target=models:/{scene.NAME}/1")).moves


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["target=models:/parrot/3"], r"pass target=models:/parrot@champion to=3"),
        (["target=models:/parrot@champion", "alias=champion-edge"], "name the alias once"),
        (["target=models:/parrot@onnx"], "target='onnx'"),
        (["target=models:/parrot@previous-edge"], "target='previous-edge'"),
        (["target=models:/parrot", "alias=challenger-edge"], "alias='challenger-edge'"),
    ],
)
def test_rollback_takes_an_alias_that_may_be_moved(
    tracking: str, words: list[str], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        rollback(scene.config(*words))


def test_policy_promotes_the_named_model_alone_and_says_so(registered: Pair) -> None:
    other = scene.report_by_a_run(
        [scene.candidate(registered.transformers, "transformers", scene.GOOD)], name="someone-else"
    )
    with pytest.raises(ConfigError, match="a report about parrot, not about someone-else"):
        promote(scene.config(f"target=models:/{scene.NAME}", f"report_uri={other}"))
    with pytest.raises(ConfigError, match="a version to promote against the policy"):
        promote(scene.config(f"target=models:/{scene.NAME}", "force=true", "reason=now"))
    promote(
        scene.config(
            f"target=models:/{scene.NAME}",
            f"report_uri={newer_report(registered, with_champion=True)}",
            "reason='of the day'",
        )
    )
    record = scene.history().entries[-1].record
    assert record.kind == "promote" and record.reason.startswith("of the day; profile balanced")


def test_objections_of_the_record_hold_no_home_and_no_password(
    registered: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    failed = scene.candidate(registered.onnx, "onnx", scene.FAST)
    failed |= {
        "status": "failed",
        "failure": {"reason": f"no file {Path.home()}/x, see https://rosa:pa55word@example.org"},
    }
    scene.report_by_a_run([failed])
    set_by_hand("champion", 1)
    promote(scene.config(f"target=models:/{scene.NAME}/2", "force=true", "reason=trial"))
    text = scene.history().entries[-1].record.to_json()
    assert (
        "could not be evaluated" in text and "pa55word" not in text and str(Path.home()) not in text
    )
