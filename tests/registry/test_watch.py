"""Somebody sets the alias ``candidate``; what happens to that version. On SQLite."""

import shlex
from pathlib import Path

import mlflow
import pytest

from steps.config.root import Config
from steps.registry import eligibility, look, watch
from steps.registry import register as room
from steps.registry.client import RegistryClient, Version
from steps.registry.journal import name_of
from tests.registry import scene
from tests.registry.conftest import Pair
from tests.registry.test_register import aliases, numbers

# ruff: noqa: ARG001  (a fixture is asked for by name, also where only what it does counts)


class Evaluator:
    """Stands in for the step ``evaluate``: reports what it is told, with the champion beside the
    candidate.
    """

    def __init__(self, decision: str = "promote", quality: float = 0.48) -> None:
        self.decision, self.metrics, self.asked = (
            decision,
            {**scene.FAST, "quality/score": quality},
            list[str](),
        )

    def __call__(self, version: Version, config: Config) -> None:
        self.asked.append(version.uri)
        registry = RegistryClient(5)
        number = (registry.aliases(version.name) or {}).get(config.promotion.alias)
        champion = registry.version(version.name, number) if number else None
        assert version.model_id is not None
        judged = [
            scene.judged(
                version.model_id,
                version.tags.get("slm.variant", "onnx"),
                self.metrics,
                self.decision,
            )
        ]
        if (
            champion is not None
            and champion.model_id is not None
            and champion.model_id != version.model_id
        ):
            judged.append(
                scene.judged(champion.model_id, "transformers", scene.GOOD, role="incumbent")
            )
        with mlflow.start_run():
            scene.log_report(judged, name=version.name)


def set_candidate(number: int) -> None:
    mlflow.MlflowClient().set_registered_model_alias(scene.NAME, "candidate", str(number))


def tags(number: int) -> dict[str, str]:
    found: dict[str, str] = mlflow.MlflowClient().get_model_version(scene.NAME, str(number)).tags
    return found


def see(evaluator: Evaluator, *overrides: str) -> list[watch.Verdict]:
    return look.look_once(scene.config(*overrides), RegistryClient(5), evaluator)


@pytest.fixture
def champion_is_slow(pair: Pair, no_canary: list[str]) -> Pair:
    """Version 1 (transformers) is champion; version 2 (onnx) is there without evidence."""
    with mlflow.start_run():
        uri = scene.log_report([scene.judged(pair.transformers, "transformers", scene.GOOD)])
    room.register(uri, scene.config())
    mlflow.MlflowClient().create_model_version(
        scene.NAME, f"models:/{pair.onnx}", model_id=pair.onnx
    )
    run_id = pair.report_uri.removeprefix("runs:/").partition("/")[0]
    mlflow.MlflowClient().set_tag(run_id, "slm.step", "put away")
    return pair


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
    assert tags(2)["slm.candidate"].startswith("promoted to @champion, entry 2")
    assert (
        tags(2)["slm.candidate.evidence"].startswith("sha256:")
        and "T" in tags(2)["slm.candidate.judged_at"]
    )
    assert tags(2)["slm.verdict"] == "promote"


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
    assert tags(2)["slm.candidate"].startswith("held: its verdict is 'hold': quality_floor")
    assert aliases()["champion"] == 1


def test_candidate_that_the_policy_ranks_lower_is_held(champion_is_slow: Pair) -> None:
    set_candidate(2)
    (verdict,) = see(Evaluator(quality=0.2))
    assert not verdict.promoted and "is better by profile balanced" in verdict.words
    assert aliases()["champion"] == 1


def test_failed_evaluation_is_a_verdict(champion_is_slow: Pair) -> None:
    def fail(version: Version, config: Config) -> None:
        raise watch.EvaluationFailedError("its evaluation failed (out of memory)")

    set_candidate(2)
    (verdict,) = look.look_once(scene.config(), RegistryClient(5), fail)
    assert verdict.words == "held: its evaluation failed (out of memory)"
    assert tags(2)["slm.candidate"] == verdict.words
    assert look.look_once(scene.config(), RegistryClient(5), fail) == []


def test_set_again_is_judged_again(champion_is_slow: Pair) -> None:
    set_candidate(2)
    see(Evaluator("hold"))
    again = look.look_once(scene.config(), RegistryClient(5), Evaluator(), again=[(scene.NAME, 2)])
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
    assert "slm.candidate" not in tags(2)


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
    assert "its canary failed" in verdict.words and tags(2)["slm.candidate.evidence"].startswith(
        "sha256:"
    )
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

    def evaluate(version: Version, config: Config) -> None:
        if version.name == "a-broken-one":
            raise MlflowException.invalid_parameter_value(f"nothing at {Path.home()}/models")
        evaluator(version, config)

    broken, fine = look.look_once(scene.config(), RegistryClient(5), evaluate)
    assert broken.words.startswith("held:") and "nothing at ~/models" in broken.words
    assert fine.promoted
    assert look.look_once(scene.config(), RegistryClient(5), evaluate) == []


def test_champion_that_moves_after_the_comparison_voids_it(champion_is_slow: Pair) -> None:
    from steps.registry.alias_store import LostRaceError
    from steps.registry.promote import promote

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
    composed = compose_config(watch.evaluation_words(RegistryClient(5), version, scene.config()))
    assert composed.evaluate.candidates == wanted and composed.model.registered_name == scene.NAME
    command = shlex.split(eligibility.evaluate_command(RegistryClient(5), version, scene.config()))
    assert compose_config([word for word in command if "=" in word]).evaluate.candidates == wanted
    client.set_logged_model_tags(champion_is_slow.onnx, {"slm.snapshot_digest": "sha256:b"})
    assert eligibility.candidates(RegistryClient(5), version) == wanted[:1]


def test_candidate_whose_strongest_evidence_did_not_see_the_champion_is_held(
    champion_is_slow: Pair,
) -> None:
    with mlflow.start_run():
        strong = scene.log_report(
            [scene.judged(champion_is_slow.onnx, "onnx", scene.FAST)], items=128, pack="core"
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
