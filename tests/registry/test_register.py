"""From a report to versions and aliases, on SQLite."""

import json
import time
from dataclasses import replace
from typing import Any

import mlflow
import pytest

from steps.core.errors import StepError
from steps.registry.journal import name_of
from tests.registry import commands, scene
from tests.registry.fixtures import Pair
from tests.registry.scene import aliases, numbers


def test_first_report_makes_two_versions_and_four_aliases(pair: Pair) -> None:
    with mlflow.start_run() as run:
        promotion = commands.register(pair.report_uri, scene.config())
    assert numbers() == [1, 2]
    assert aliases() == {"transformers": 1, "onnx": 2, "champion": 2, "challenger": 1}
    assert (row := commands.champion_of(promotion)) is not None and row.variant == "onnx"
    assert [row.canary for row in promotion.rows] == ["passed", "passed"]
    kept = mlflow.artifacts.load_dict(f"runs:/{run.info.run_id}/promotion.json")
    assert kept["schema"] == "slm-promote/promotion/1"
    assert [row["version"] for row in kept["rows"]] == [1, 2]
    assert kept["entry"] == promotion.entry == 1


@pytest.mark.usefixtures("no_canary")
def test_version_carries_tags_and_card(pair: Pair) -> None:
    commands.register(pair.report_uri, scene.config())
    version = mlflow.MlflowClient().get_model_version(scene.NAME, "2")
    assert version.source == f"models:/{pair.onnx}"
    assert version.tags["slm.variant"] == "onnx"
    # MLflow's list of versions shows tags in this order
    assert list(version.tags)[:2] == ["slm.verdict", "slm.variant"]
    assert version.tags["slm.evaluation"] == pair.report_uri
    assert version.tags["slm.verdict"] == "promote"
    assert version.tags["slm.evidence_digest"].startswith("sha256:")
    assert version.tags["slm.snapshot_revision"] == "abc"
    for words in (
        "nobody/parrot",
        "MIT",
        "abc",
        "| Quality, share of the items passed | 48.0 % |",
        "n above 1: one choice only",
        'load_model("models:/parrot/2")',
        "mlflow run .",
    ):
        assert words in (version.description or "")
    assert len(version.description or "") <= 5000
    assert (
        mlflow.MlflowClient()
        .get_registered_model(scene.NAME)
        .description.startswith("parrot: a small language model")
    )
    # where the UI opens the report; it shows no links that begin with runs:/
    run = mlflow.get_run(pair.report_uri.removeprefix("runs:/").partition("/")[0]).info
    page = f"#/experiments/{run.experiment_id}/runs/{run.run_id}/artifacts/report.html"
    assert f"[report.html]({page})" in (version.description or "")
    assert "](runs:/" not in (version.description or "")


@pytest.mark.usefixtures("no_canary")
def test_logged_models_name_their_versions(pair: Pair) -> None:
    """Their pages say "Not registered" otherwise; what others wrote there stays."""
    client = mlflow.MlflowClient()
    theirs = [{"name": "other", "version": "7"}]
    client.set_logged_model_tags(pair.onnx, {"mlflow.modelVersions": json.dumps(theirs)})
    client.set_logged_model_tags(pair.transformers, {"mlflow.modelVersions": "no list"})

    def versions(model_id: str) -> Any:
        return json.loads(client.get_logged_model(model_id).tags["mlflow.modelVersions"])

    for _ in range(2):
        commands.register(pair.report_uri, scene.config())
        assert versions(pair.onnx) == [*theirs, {"name": scene.NAME, "version": "2"}]
        assert versions(pair.transformers) == [{"name": scene.NAME, "version": "1"}]


@pytest.mark.parametrize(
    ("busy", "weights", "champion"),
    [
        ("", "{quality: 24, latency: 1, memory: 0, size: 0}", 2),
        ("steal took 9 %", "{quality: 24, latency: 1, memory: 0, size: 0}", None),
        # the same version wins with its times doubled
        ("steal took 9 %", "{quality: 1, latency: 9, memory: 1, size: 0}", 2),
    ],
)
@pytest.mark.usefixtures("no_canary")
def test_a_busy_machine_does_not_choose_by_speed(
    pair: Pair, busy: str, weights: str, champion: int | None
) -> None:
    machine = {"load": {"words": busy}}
    uri = scene.report_by_a_run(
        [
            scene.candidate(pair.transformers, "transformers", scene.GOOD),
            scene.candidate(pair.onnx, "onnx", scene.FAST),
        ],
        machine=machine,
    )
    promotion = commands.register(uri, scene.config(f"promotion.weights={weights}"))
    assert aliases().get("champion") == champion
    assert (aliases()["transformers"], aliases()["onnx"]) == (1, 2)
    if champion is None:
        assert f"is undecided, as {busy} while speed was measured" in promotion.reason
    else:
        words = "chose version 2 (onnx) over version 1 (transformers): quality 48.0 % instead of"
        assert words in promotion.reason
        assert ("it would win with its times doubled" in promotion.reason) is bool(busy)


def test_same_report_again_changes_nothing(pair: Pair, no_canary: list[str]) -> None:
    commands.register(pair.report_uri, scene.config())
    before = [mlflow.MlflowClient().get_model_version(scene.NAME, str(number)) for number in (1, 2)]
    asked = len(no_canary)
    again = commands.register(pair.report_uri, scene.config())
    assert again.moves == () and again.entry is None
    assert not any(row.created for row in again.rows)
    assert len(no_canary) == asked
    after = [mlflow.MlflowClient().get_model_version(scene.NAME, str(number)) for number in (1, 2)]
    assert [each.last_updated_timestamp for each in after] == [
        each.last_updated_timestamp for each in before
    ]
    assert numbers(name_of(scene.NAME)) == [1]


@pytest.mark.usefixtures("no_canary")
def test_new_evidence_on_the_same_model_adds_no_version(pair: Pair) -> None:
    commands.register(pair.report_uri, scene.config())
    newer = scene.report_by_a_run([scene.candidate(pair.onnx, "onnx", scene.FAST, decision="hold")])
    promotion = commands.register(newer, scene.config())
    assert numbers() == [1, 2]
    assert mlflow.MlflowClient().get_model_version(scene.NAME, "2").tags["slm.evaluation"] == newer
    assert mlflow.MlflowClient().get_model_version(scene.NAME, "2").tags["slm.verdict"] == "hold"
    assert promotion.rows[0].failed_gates == ("quality_floor",)


@pytest.mark.usefixtures("no_canary")
def test_held_candidate_gets_a_version_and_no_alias(pair: Pair) -> None:
    uri = scene.report_by_a_run(
        [
            scene.candidate(pair.transformers, "transformers", scene.GOOD),
            scene.candidate(pair.onnx, "onnx", scene.FAST, decision="hold"),
        ]
    )
    promotion = commands.register(uri, scene.config())
    assert numbers() == [1, 2]
    assert aliases() == {"transformers": 1, "champion": 1}
    assert "(failed quality_floor)" in promotion.reason


@pytest.mark.usefixtures("no_canary")
def test_nothing_passed_moves_nothing(pair: Pair) -> None:
    uri = scene.report_by_a_run(
        [scene.candidate(pair.onnx, "onnx", scene.FAST, decision="insufficient_evidence")]
    )
    promotion = commands.register(uri, scene.config())
    assert numbers() == [1] and aliases() == {}
    assert promotion.moves == () and "no candidate passed" in promotion.reason


def test_nothing_evaluated_is_an_error(pair: Pair) -> None:
    failed = scene.candidate(pair.onnx, "onnx", scene.FAST) | {
        "status": "failed",
        "failure": {"reason": "out of memory", "log_tail": ""},
    }
    uri = scene.report_by_a_run([failed])
    with pytest.raises(StepError, match=r"nothing to register.*out of memory"):
        commands.register(uri, scene.config())


def test_dry_run_says_the_same_and_writes_nothing(pair: Pair) -> None:
    planned = commands.register(pair.report_uri, scene.config(), dry_run=True)
    assert mlflow.MlflowClient().search_registered_models() == []
    assert [row.version for row in planned.rows] == [None, None]
    assert {move.alias: move.after for move in planned.moves} == {
        "transformers": 1,
        "onnx": 2,
        "champion": 2,
        "challenger": 1,
    }


@pytest.mark.usefixtures("tracking")
def test_failing_canary_leaves_the_alias_to_the_other() -> None:
    with mlflow.start_run():
        good, broken = scene.log_model("transformers"), scene.log_model("onnx", fault="shape")
        uri = scene.log_report(
            [
                scene.candidate(good, "transformers", scene.GOOD),
                scene.candidate(broken, "onnx", scene.FAST),
            ]
        )
    promotion = commands.register(uri, scene.config())
    assert aliases() == {"transformers": 1, "champion": 1}
    assert promotion.rows[1].canary.startswith("completion shape")
    assert "(canary)" in promotion.reason


def test_report_about_other_bytes_is_refused(pair: Pair) -> None:
    mlflow.MlflowClient().set_logged_model_tags(pair.onnx, {"slm.digest": "sha256:other"})
    with pytest.raises(
        StepError, match=r"the report judged sha256:.*the logged model says sha256:other"
    ):
        commands.register(pair.report_uri, scene.config())


@pytest.mark.usefixtures("tracking")
def test_report_of_another_schema_is_refused() -> None:
    with mlflow.start_run() as run:
        mlflow.log_text('{"schema": "slm-promote/report/9"}', "report.json")
    with pytest.raises(StepError, match="schema is 'slm-promote/report/9', expected"):
        commands.register(f"runs:/{run.info.run_id}/report.json", scene.config())


@pytest.mark.usefixtures("tracking")
def test_missing_report_names_the_command() -> None:
    with mlflow.start_run() as run:
        pass
    with pytest.raises(StepError, match=r"mlflow run \. -e evaluate"):
        commands.register(f"runs:/{run.info.run_id}/report.json", scene.config())


@pytest.mark.parametrize(
    ("profile", "alias", "winner"),
    [("balanced", "champion", 2), ("quality", "champion", 1), ("edge", "champion-edge", 2)],
)
@pytest.mark.usefixtures("no_canary")
def test_profiles_choose(pair: Pair, profile: str, alias: str, winner: int) -> None:
    commands.register(pair.report_uri, scene.config(f"promotion={profile}"))
    assert aliases()[alias] == winner


MADE = {"slm.made_by": "ci", "slm.verdict": "promote"}  # as a run of this project makes a version


@pytest.mark.usefixtures("no_canary")
def test_twin_of_a_raced_registration_is_removed(
    pair: Pair, caplog: pytest.LogCaptureFixture
) -> None:
    client = mlflow.MlflowClient()
    client.create_registered_model(scene.NAME)
    for _ in range(2):
        client.create_model_version(
            scene.NAME, f"models:/{pair.onnx}", tags=MADE, model_id=pair.onnx
        )
    commands.register(pair.report_uri, scene.config())
    assert numbers() == [1, 3]
    assert aliases()["onnx"] == 1
    assert "models:/parrot/2 is of the same logged model as version 1, as two runs" in caplog.text


@pytest.mark.usefixtures("no_canary")
@pytest.mark.parametrize("name", [scene.NAME, "parrot-prod"])
def test_copy_of_a_version_is_left(pair: Pair, name: str, caplog: pytest.LogCaptureFixture) -> None:
    """Within one registered model, and twice into another, as a release board does."""
    caplog.set_level("INFO")
    commands.register(pair.report_uri, scene.config())
    client = mlflow.MlflowClient()
    for _ in range(2):
        client.copy_model_version(f"models:/{scene.NAME}/1", name)
    there = numbers(name)
    uri = scene.report_by_a_run(
        [
            scene.candidate(pair.transformers, "transformers", scene.GOOD),
            scene.candidate(pair.onnx, "onnx", scene.FAST),
        ],
        name=name,
    )
    commands.register(uri, scene.config())
    assert {*there} <= {*numbers(name)}
    assert f"is left: somebody copied it from models:/{scene.NAME}/1" in caplog.text


@pytest.mark.usefixtures("no_canary")
@pytest.mark.parametrize("mark", ["tag", "description", "hand", "alias"])
def test_twin_that_a_person_made_or_wrote_on_is_left(
    pair: Pair, mark: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    client = mlflow.MlflowClient()
    client.create_registered_model(scene.NAME)
    for _ in range(2):
        client.create_model_version(
            scene.NAME,
            f"models:/{pair.onnx}",
            tags=None if mark == "hand" else MADE,
            model_id=pair.onnx,
        )
    time.sleep(0.002)  # times are in milliseconds
    if mark == "tag":
        client.set_model_version_tag(scene.NAME, "2", "note", "approved by the release board")
    elif mark == "description":
        client.update_model_version(scene.NAME, "2", "the one that we sold")
    elif mark == "alias":
        client.set_registered_model_alias(scene.NAME, "sold", "2")
    commands.register(pair.report_uri, scene.config())
    assert numbers() == [1, 2, 3] and "models:/parrot/2 is of the same logged model" in caplog.text


@pytest.mark.parametrize(
    ("quality", "champion", "others"),
    [(0.45, 2, {"challenger": 3}), (0.60, 3, {"challenger": 2, "previous": 2})],
)
@pytest.mark.usefixtures("no_canary")
def test_incumbent_defends_its_place(
    pair: Pair, quality: float, champion: int, others: dict[str, int]
) -> None:
    commands.register(pair.report_uri, scene.config())
    with mlflow.start_run():
        newer = scene.log_model("onnx", name="newer")
        uri = scene.log_report(
            [
                scene.candidate(newer, "onnx", {**scene.FAST, "quality/score": quality}),
                scene.candidate(
                    pair.onnx,
                    "onnx",
                    scene.FAST,
                    decision="insufficient_evidence",
                    role="incumbent",
                ),
            ]
        )
    promotion = commands.register(uri, scene.config())
    assert numbers() == [1, 2, 3]
    assert aliases() == {"transformers": 1, "onnx": 3, "champion": champion} | others
    assert [row.version for row in promotion.rows] == [3, 2]


def test_card_says_how_the_model_is_made_again() -> None:
    from steps.registry.versions import remake

    tags = {
        "slm.command": (
            "mlflow run https://git.example.org/x -v abc -e log_onnx_wrapper --env-manager local -P"
            " 'overrides=onnx=int8_cpu'"
        ),
        "slm.overrides": (
            "onnx=int8_cpu evaluate=smoke model=smollm2_135m snapshot_uri=runs:/1/snapshot.json"
            " onnx_uri=models:/m-1"
        ),
    }
    made = (
        "mlflow run https://git.example.org/x -v abc --env-manager local -P"
        " onnx=int8_cpu -P model=smollm2_135m"
    )
    assert remake(tags) == made
    assert remake({}) is None


def test_a_twin_that_is_about_to_go_is_no_version_to_point_at() -> None:
    """Three who register at once: the aliases must not go to a version that its maker deletes in
    the next moment.
    """
    from steps.registry.model_version import Version
    from steps.registry.versions import without_twins

    def version(number: int, model_id: str | None) -> Version:
        source = f"models:/{model_id}" if model_id else "runs:/0/model"
        made = {"slm.made_by": "ci"}
        return Version("parrot", number, made, (), source, None, "", 0)

    known = [
        version(1, "m-a"),
        version(2, "m-b"),
        version(3, None),
        version(4, "m-b"),
        version(5, None),
        version(6, "m-a"),
    ]
    assert [each.number for each in without_twins(known)] == [1, 2, 3, 5]
    copied = replace(version(7, "m-a"), source="models:/parrot/1", tags={"slm.model_id": "m-a"})
    assert [each.number for each in without_twins([*known, copied])] == [1, 2, 3, 5, 7]


def test_report_that_leaves_things_out_gets_a_card(pair: Pair, no_canary: list[str]) -> None:  # noqa: ARG001
    text = json.loads(mlflow.artifacts.load_text(pair.report_uri))
    text["pack"] = {"items": 30}
    with mlflow.start_run() as run:
        mlflow.log_text(json.dumps(text), "report.json")
    assert commands.register(f"runs:/{run.info.run_id}/report.json", scene.config()).moves
    assert "pack unknown (30 items)" in str(
        mlflow.MlflowClient().get_model_version(scene.NAME, "1").description
    )


@pytest.mark.parametrize("broken", [{"policy": {"gates": [1]}}, {"pack": [1]}, {"snapshot": "x"}])
def test_report_of_another_shape_is_refused_in_one_line(pair: Pair, broken: dict[str, Any]) -> None:
    text = json.loads(mlflow.artifacts.load_text(pair.report_uri)) | broken
    with mlflow.start_run() as run:
        mlflow.log_text(json.dumps(text), "report.json")
    with pytest.raises(StepError, match=r"not an evaluation report \(\w+Error: .*"):
        commands.register(f"runs:/{run.info.run_id}/report.json", scene.config())
