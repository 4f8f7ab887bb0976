"""Somebody sets the alias ``candidate``; what happens to that version. On SQLite."""

import shlex
from pathlib import Path

import mlflow
import pytest

from steps.registry import candidate_decision, candidate_evaluation, eligibility
from steps.registry.client import RegistryClient
from steps.registry.journal import name_of
from steps.registry.model_version import Version
from tests.registry import commands, scene
from tests.registry.doubles import Evaluator
from tests.registry.fixtures import Pair
from tests.registry.scene import aliases, numbers, set_candidate, version_tags

# ruff: noqa: ARG001  (a fixture is asked for by name, also where only what it does counts)


def see(evaluator: Evaluator, *overrides: str) -> list[candidate_decision.Verdict]:
    return commands.poll_once(scene.config(*overrides), RegistryClient(5), evaluator)


def test_nobody_set_anything(champion_is_slow: Pair) -> None:
    evaluator = Evaluator()
    assert see(evaluator) == [] and evaluator.asked == []


def test_candidate_without_evidence_is_evaluated_and_promoted(champion_is_slow: Pair) -> None:
    set_candidate(2)
    evaluator = Evaluator()
    (verdict,) = see(evaluator)
    assert evaluator.asked == [f"models:/{scene.NAME}/2"]
    assert verdict.promoted, verdict.words
    assert aliases() == {"transformers": 1, "champion": 2, "previous": 1, "candidate": 2}
    assert version_tags(2)["slm.candidate"].startswith("promoted to @champion, entry 2")
    assert (
        version_tags(2)["slm.candidate.evidence"].startswith("sha256:")
        and "T" in version_tags(2)["slm.candidate.judged_at"]
    )
    assert version_tags(2)["slm.verdict"] == "promote"


def test_the_same_candidate_is_judged_once(champion_is_slow: Pair) -> None:
    set_candidate(2)
    see(Evaluator())
    again = Evaluator()
    assert see(again) == [] and again.asked == []
    assert numbers(name_of(scene.NAME)) == [1, 2]


def test_candidate_that_fails_its_gates_is_held(champion_is_slow: Pair) -> None:
    set_candidate(2)
    (verdict,) = see(Evaluator("hold"))
    assert not verdict.promoted
    assert version_tags(2)["slm.candidate"].startswith("held: its verdict is 'hold': quality_floor")
    assert aliases()["champion"] == 1


def test_candidate_that_the_policy_ranks_lower_is_held(champion_is_slow: Pair) -> None:
    set_candidate(2)
    (verdict,) = see(Evaluator(quality=0.2))
    assert not verdict.promoted and "is better by profile balanced" in verdict.words
    assert aliases()["champion"] == 1


def test_failed_evaluation_is_a_verdict(champion_is_slow: Pair) -> None:
    def fail(version: Version, alias: str) -> None:
        raise candidate_evaluation.EvaluationFailedError("its evaluation failed (out of memory)")

    set_candidate(2)
    (verdict,) = commands.poll_once(scene.config(), RegistryClient(5), fail)
    assert verdict.words == "held: its evaluation failed (out of memory)"
    assert version_tags(2)["slm.candidate"] == verdict.words
    assert commands.poll_once(scene.config(), RegistryClient(5), fail) == []


def test_set_again_is_judged_again(champion_is_slow: Pair) -> None:
    set_candidate(2)
    see(Evaluator("hold"))
    again = commands.poll_once(
        scene.config(), RegistryClient(5), Evaluator(), again=[(scene.NAME, 2)]
    )
    assert len(again) == 1


def test_champion_as_candidate_stays_what_it_is(champion_is_slow: Pair) -> None:
    set_candidate(1)
    (verdict,) = see(Evaluator())
    assert verdict.words == "it is @champion already" and not verdict.promoted


def test_dry_run_tags_nothing(champion_is_slow: Pair) -> None:
    set_candidate(2)
    evaluator = Evaluator()
    (verdict,) = see(evaluator, "dry_run=true")
    assert verdict.words == "dry run: would be evaluated first" and evaluator.asked == []
    assert "slm.candidate" not in version_tags(2)


def test_failing_canary_is_answered_once(
    champion_is_slow: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    from steps.registry import canary

    bad = canary.Check("completion shape", False, "it did not")
    monkeypatch.setattr(
        canary,
        "run",
        lambda uri, digest, _: canary.Canary(uri, digest, False, (bad,), 0, 0.0, "none"),
    )
    set_candidate(2)
    (verdict,) = see(Evaluator())
    assert "its canary failed" in verdict.words and version_tags(2)[
        "slm.candidate.evidence"
    ].startswith("sha256:")
    again = Evaluator()
    assert see(again) == [] and again.asked == []


def test_one_broken_candidate_does_not_keep_the_others_waiting(champion_is_slow: Pair) -> None:
    from mlflow.exceptions import MlflowException

    client = mlflow.MlflowClient()
    client.create_registered_model("a-broken-one")
    client.create_model_version(
        "a-broken-one", f"models:/{champion_is_slow.onnx}", model_id=champion_is_slow.onnx
    )
    client.set_registered_model_alias("a-broken-one", "candidate", "1")
    set_candidate(2)
    evaluator = Evaluator()

    def evaluate(version: Version, alias: str) -> None:
        if version.name == "a-broken-one":
            raise MlflowException.invalid_parameter_value(f"nothing at {Path.home()}/models")
        evaluator(version, alias)

    broken, fine = commands.poll_once(scene.config(), RegistryClient(5), evaluate)
    assert broken.words.startswith("held:") and "nothing at ~/models" in broken.words
    assert fine.promoted
    assert commands.poll_once(scene.config(), RegistryClient(5), evaluate) == []


def test_champion_that_moves_after_the_comparison_voids_it(champion_is_slow: Pair) -> None:
    from steps.registry.alias_store import LostRaceError
    from tests.registry.commands import promote

    see(Evaluator())
    with pytest.raises(LostRaceError, match="moved since the versions were compared"):
        promote(scene.config(f"target=models:/{scene.NAME}/2"), beaten={"champion": 7})


def test_conversion_is_evaluated_with_the_checkpoint_of_its_snapshot(
    champion_is_slow: Pair,
) -> None:
    from steps.pipeline.compose import compose_config

    client = mlflow.MlflowClient()
    for model_id, snapshot in (
        (champion_is_slow.transformers, "sha256:a"),
        (champion_is_slow.onnx, "sha256:a"),
    ):
        client.set_logged_model_tags(model_id, {"slm.snapshot_digest": snapshot})
    version = RegistryClient(5).version(scene.NAME, 2)
    assert version is not None
    wanted = [f"models:/{scene.NAME}/2", f"models:/{scene.NAME}/1"]
    composed = compose_config(
        candidate_evaluation.evaluation_overrides(RegistryClient(5), (), version, "champion")
    )
    assert composed.evaluate.candidates == wanted and composed.model.registered_name == scene.NAME
    command = shlex.split(eligibility.evaluate_command(RegistryClient(5), version, "champion"))
    assert compose_config([word for word in command if "=" in word]).evaluate.candidates == wanted
    client.set_logged_model_tags(champion_is_slow.onnx, {"slm.snapshot_digest": "sha256:b"})
    assert eligibility.candidates(RegistryClient(5), version) == wanted[:1]


def test_candidate_whose_strongest_evidence_did_not_see_the_champion_is_held(
    champion_is_slow: Pair,
) -> None:
    strong = scene.report_by_a_run(
        [scene.candidate(champion_is_slow.onnx, "onnx", scene.FAST)], items=128, pack="core"
    )
    set_candidate(2)
    evaluator = Evaluator()
    (verdict,) = see(evaluator)
    assert evaluator.asked == [f"models:/{scene.NAME}/2"]
    assert not verdict.promoted and aliases()["champion"] == 1
    assert (
        f"its strongest evidence, {strong} (pack core, 128 items), did not see @champion"
        in verdict.words
    )
