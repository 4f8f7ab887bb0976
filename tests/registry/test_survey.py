"""What a look of `watch` costs, and what one bad model does to it."""

import json
import logging
import shutil
import sqlite3
from collections import Counter as Counts
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import mlflow
import pytest

from steps.core.model_uri import model_id_of
from steps.registry import candidate_decision, verdict_memory
from steps.registry.client import RegistryClient
from steps.registry.model_version import Version
from steps.registry.result import RefusedError
from steps.registry.verdict_memory import Memory
from tests.registry import commands, registries, scene
from tests.registry.commands import promote
from tests.registry.doubles import Clock, Evaluator, counted, never
from tests.registry.fixtures import Pair
from tests.registry.scene import set_candidate, version_tags


# ruff: noqa: ARG001  (a fixture is asked for by name, also where only what it does counts)
def test_look_where_nothing_changed_costs_four_calls(tracking: str) -> None:
    registries.settled(tracking, models=200, entries=3)
    counter = counted(mlflow.MlflowClient())
    assert commands.poll_once(scene.config(), RegistryClient(5, client=counter), never) == []
    assert sorted(counter.made) == [
        "search_experiments",
        "search_model_versions",
        "search_registered_models",
        "search_runs",
    ]


def test_change_of_one_model_is_looked_at_alone(tracking: str) -> None:
    registries.settled(tracking, models=5)
    mlflow.MlflowClient().set_model_version_tag(
        "model-003", "1", "slm.evaluation", "runs:/1/report.json"
    )
    counter = counted(mlflow.MlflowClient())
    commands.poll_once(scene.config(), RegistryClient(1, client=counter), never)
    assert {name for name, count in Counts(counter.made).items() if count > 1} <= {
        "search_experiments",
        "search_runs",
    }
    assert 4 < len(counter.made) < 20


def journal_of(name: str, record: str) -> None:
    """A model whose journal holds this for a record."""
    client = mlflow.MlflowClient()
    client.create_registered_model(name)
    client.create_model_version(name, registries.SOURCE)
    client.create_registered_model(f"{name}.history", tags={"slm.kind": "history"})
    client.create_model_version(
        f"{name}.history", registries.SOURCE, tags={"slm.record": record, "slm.record_id": "1"}
    )
    client.set_registered_model_alias(name, "candidate", "1")


GOOD_RECORD = {
    "id": "1",
    "kind": "promote",
    "moves": [["champion", None, 1]],
    "actor": "a",
    "reason": "r",
    "details": {},
}


@pytest.mark.parametrize(
    "record",
    [
        "{",
        "null",
        "[]",
        '"text"',
        "{}",
        json.dumps({**GOOD_RECORD, "moves": [[1]]}),
        json.dumps({**GOOD_RECORD, "moves": None}),
    ],
)
def test_damaged_record_ends_nobody_elses_look(
    champion_is_slow: Pair, record: str, caplog: pytest.LogCaptureFixture
) -> None:
    journal_of("a-bad-one", record)
    set_candidate(2)
    clock = Clock()
    memory = Memory(clock)
    evaluator = Evaluator()
    with caplog.at_level(logging.WARNING):
        (verdict,) = commands.poll_once(scene.config(), RegistryClient(5), evaluator, memory=memory)
        assert verdict.promoted and verdict.uri == f"models:/{scene.NAME}/2"
        for _ in range(3):
            assert (
                commands.poll_once(scene.config(), RegistryClient(5), evaluator, memory=memory)
                == []
            )
    assert caplog.text.count("models:/a-bad-one cannot be looked at") == 1
    assert evaluator.asked == [f"models:/{scene.NAME}/2"]


def test_evidence_that_nothing_reads_ends_nobody_elses_look(
    champion_is_slow: Pair, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    client = mlflow.MlflowClient()
    for name in ("a-bad-one", "a-worse-one"):
        client.create_registered_model(name)
        client.create_model_version(
            name,
            f"models:/{champion_is_slow.onnx}",
            tags={"slm.evaluation": "s3://bucket/report.json"},
        )
        client.set_registered_model_alias(name, "candidate", "1")
    set_candidate(2)
    judge = candidate_decision.decide

    def broken(version: Version, *given: Any) -> Any:
        if version.name == "a-worse-one":
            raise OddError
        return judge(version, *given)

    monkeypatch.setattr(candidate_decision, "decide", broken)
    with caplog.at_level(logging.WARNING):
        found = {
            each.uri: each
            for each in commands.poll_once(scene.config(), RegistryClient(5), Evaluator())
        }
    assert found[f"models:/{scene.NAME}/2"].promoted and "models:/a-bad-one/1" in found
    assert "models:/a-worse-one cannot be looked at: OddError" in caplog.text


class OddError(Exception):
    """Of a kind that no code here knows."""


def test_record_of_a_later_version_ends_nobody_elses_look(champion_is_slow: Pair) -> None:
    journal_of("a-later-one", json.dumps({**GOOD_RECORD, "field_of_a_later_version": 1}))
    set_candidate(2)
    found = commands.poll_once(scene.config(), RegistryClient(5), Evaluator())
    assert [each.promoted for each in found if each.uri == f"models:/{scene.NAME}/2"] == [True]


def test_name_that_no_command_accepts_is_left_out(
    champion_is_slow: Pair, caplog: pytest.LogCaptureFixture
) -> None:
    client = mlflow.MlflowClient()
    client.create_registered_model("it's")
    client.create_model_version("it's", registries.SOURCE)
    client.set_registered_model_alias("it's", "candidate", "1")
    set_candidate(2)
    memory = Memory()
    with caplog.at_level(logging.WARNING):
        (verdict,) = commands.poll_once(
            scene.config(), RegistryClient(5), Evaluator(), memory=memory
        )
        commands.poll_once(scene.config(), RegistryClient(5), Evaluator(), memory=memory)
    assert verdict.promoted and caplog.text.count("expected letters and digits") == 1


def test_failing_model_waits_and_is_tried_again_when_it_changes() -> None:
    clock = Clock()
    memory = Memory(clock)
    assert memory.due("a", "s1")
    assert memory.failed("a", "s1", "broken") and not memory.due("a", "s1")
    assert memory.due("a", "s2")
    waits = []
    for _ in range(9):
        while not memory.due("a", "s1"):
            clock.now += 10
        waits.append(clock.now)
        assert not memory.failed("a", "s1", "broken")
    gaps = [later - earlier for earlier, later in pairwise(waits)]
    assert gaps[:3] == [120, 240, 480] and gaps[-1] == verdict_memory.LONGEST_WAIT
    assert memory.failed("a", "s1", "broken in another way") and memory.failed(
        "a", "s2", "broken in another way"
    )
    memory.passed("a")
    assert memory.due("a", "s2")


def test_lost_artifacts_are_a_verdict_given_once(
    champion_is_slow: Pair, caplog: pytest.LogCaptureFixture
) -> None:
    location = str(
        mlflow.MlflowClient().get_logged_model(champion_is_slow.onnx).artifact_location
    ).removeprefix("file://")
    shutil.rmtree(location)
    run_id = str(
        mlflow.MlflowClient().get_model_version(scene.NAME, "1").tags["slm.evaluation"]
    ).split("/")[1]
    shutil.rmtree(Path(str(mlflow.get_run(run_id).info.artifact_uri).removeprefix("file://")))
    set_candidate(2)

    def evaluate(version: Version, alias: str) -> None:
        mlflow.artifacts.download_artifacts(version.uri)

    memory = Memory()
    (verdict,) = commands.poll_once(scene.config(), RegistryClient(1), evaluate, memory=memory)
    assert verdict.words.startswith("held:") and len(verdict.words.splitlines()) == 1
    assert commands.poll_once(scene.config(), RegistryClient(1), never, memory=memory) == []
    assert commands.poll_once(scene.config(), RegistryClient(1), never) == []


def of_a_run(pair: Pair) -> str:
    client = mlflow.MlflowClient()
    client.create_registered_model("older")
    client.create_model_version("older", registries.SOURCE)
    return "there is no logged model behind it (its source is runs:/"


def in_status(status: str) -> Callable[[Pair], str]:
    def make(pair: Pair) -> str:
        client = mlflow.MlflowClient()
        client.create_registered_model("older")
        client.create_model_version("older", f"models:/{pair.onnx}", model_id=pair.onnx)
        with sqlite3.connect(mlflow.get_tracking_uri().removeprefix("sqlite:///")) as database:
            database.execute(
                "update model_versions set status = ?, status_message = 'no space' where name ="
                " 'older'",
                (status,),
            )
        return f"({status}); "

    return make


def copy_of_nothing(pair: Pair) -> str:
    client = mlflow.MlflowClient()
    client.create_registered_model("origin")
    client.create_model_version("origin", f"models:/{pair.onnx}", model_id=pair.onnx)
    client.copy_model_version("models:/origin/1", "older")
    client.delete_model_version("origin", "1")
    return "it is a copy of models:/origin/1, which leads to no logged model"


@pytest.mark.parametrize(
    "make",
    [
        of_a_run,
        in_status("FAILED_REGISTRATION"),
        in_status("PENDING_REGISTRATION"),
        copy_of_nothing,
    ],
)
def test_version_that_can_never_be_judged_has_a_clear_end(
    pair: Pair, no_canary: list[str], make: Callable[[Pair], str]
) -> None:
    words = make(pair)
    with pytest.raises(RefusedError) as refused:
        promote(scene.config("target=models:/older/1"))
    assert words in str(refused.value) and "evaluate it" not in str(refused.value)
    mlflow.MlflowClient().set_registered_model_alias("older", "candidate", "1")
    (verdict,) = commands.poll_once(scene.config(), RegistryClient(5), never)
    assert verdict.words.startswith("held: models:/older/1") and words in verdict.words
    counter = counted(mlflow.MlflowClient())
    assert commands.poll_once(scene.config(), RegistryClient(5, client=counter), never) == []
    assert len(counter.made) == 4


def test_registration_that_finishes_is_judged_then(champion_is_slow: Pair) -> None:
    make = "update model_versions set status = ? where name = ? and version = 2"
    database = sqlite3.connect(mlflow.get_tracking_uri().removeprefix("sqlite:///"))
    with database:
        database.execute(make, ("PENDING_REGISTRATION", scene.NAME))
    set_candidate(2)
    (verdict,) = commands.poll_once(scene.config(), RegistryClient(5), never)
    assert "PENDING_REGISTRATION" in verdict.words
    with database:
        database.execute(make, ("READY", scene.NAME))
    database.close()
    (verdict,) = commands.poll_once(scene.config(), RegistryClient(5), Evaluator())
    assert verdict.promoted


def test_copied_version_is_judged_by_the_logged_model_behind_it(
    pair: Pair, no_canary: list[str]
) -> None:
    client = mlflow.MlflowClient()
    client.create_registered_model("Staging Models")
    client.create_model_version("Staging Models", f"models:/{pair.onnx}", model_id=pair.onnx)
    client.copy_model_version("models:/Staging Models/1", "staged twice")
    client.copy_model_version("models:/staged twice/1", scene.NAME)
    assert model_id_of(f"models:/{scene.NAME}/1") == pair.onnx
    set_candidate(1)
    # the report is about the same bytes
    (verdict,) = commands.poll_once(
        scene.config(f"target=models:/{scene.NAME}"), RegistryClient(5), never
    )
    assert verdict.promoted, verdict.words
    assert (
        version_tags(1)["slm.candidate"].startswith("promoted to @champion")
        and version_tags(1)["slm.model_id"] == pair.onnx
    )


def test_damaged_tag_of_a_verdict_is_judged_anew(champion_is_slow: Pair) -> None:
    set_candidate(2)
    commands.poll_once(scene.config(), RegistryClient(5), Evaluator("hold"))
    mlflow.MlflowClient().set_model_version_tag(
        scene.NAME, "2", verdict_memory.WHEN_TAG, "yesterday"
    )
    # by a close look: the evidence is the same
    assert commands.poll_once(scene.config(), RegistryClient(5), never) == []


def test_new_evidence_is_found_by_the_survey(champion_is_slow: Pair) -> None:
    set_candidate(2)
    commands.poll_once(scene.config(), RegistryClient(5), Evaluator("hold"))
    with mlflow.start_run():
        judged = [
            scene.candidate(champion_is_slow.onnx, "onnx", scene.FAST),
            scene.candidate(
                champion_is_slow.transformers, "transformers", scene.GOOD, role="incumbent"
            ),
        ]
        scene.log_report(judged)
    (verdict,) = commands.poll_once(scene.config(), RegistryClient(5), never)
    assert verdict.promoted
