"""MLflow's basic auth: who may read, who may promote, and that no secret is left anywhere."""

import os
import subprocess
from functools import partial
from pathlib import Path

import mlflow
import pytest

from steps.registry import belonging, candidate_evaluation
from steps.registry.belonging import ForeignHistoryError
from steps.registry.client import PermissionRefusedError, RegistryClient
from steps.registry.entry import RECORD_TAG, SETTLED_TAG
from steps.registry.journal import KIND_TAG
from steps.registry.record import Record
from steps.registry.table import show_history
from tests.conftest import BIN, ROOT, clean_environment
from tests.registry import commands, scene
from tests.registry.commands import promote
from tests.registry.doubles import no_evaluation
from tests.registry.listener import Listener
from tests.server.servers import ADMIN, DATABASE, PASSWORD, As, Postgres, Server, make_user

pytestmark = [pytest.mark.server, pytest.mark.slow, pytest.mark.timeout(1200)]
READER, RELEASER = "reader", "releaser"


def registered(name: str) -> None:
    with mlflow.start_run(experiment_id=mlflow.set_experiment("test").experiment_id):
        slow, fast = scene.log_model("transformers"), scene.log_model("onnx")
        uri = scene.log_report(
            [
                scene.candidate(slow, "transformers", scene.GOOD),
                scene.candidate(fast, "onnx", scene.FAST),
            ],
            name=name,
        )
    commands.register(uri, scene.config())


@pytest.mark.usefixtures("no_canary")
def test_reader_may_look_and_is_refused_clearly(
    guarded: Server, as_user: As, capsys: pytest.CaptureFixture[str]
) -> None:
    as_user(ADMIN, PASSWORD)
    registered("guarded")
    make_user(guarded, READER, "reader-passw0rd-1")
    as_user(READER, "reader-passw0rd-1")
    before = RegistryClient(10).aliases("guarded")
    found = show_history(scene.config("target=models:/guarded"), as_json=False)
    assert found["entries"][0]["who"] == ADMIN and "register" in capsys.readouterr().out
    planned = promote(scene.config("target=models:/guarded/1", "dry_run=true"))
    assert planned.moves
    with pytest.raises(
        PermissionRefusedError,
        match=r"the tracking server refuses it .*EDIT permission on the registered model",
    ):
        promote(scene.config("target=models:/guarded/1"))
    assert RegistryClient(10).aliases("guarded") == before


@pytest.mark.usefixtures("as_user")
def test_wrong_password_is_refused_at_once(as_user: As) -> None:
    as_user(ADMIN, "not the password")
    with pytest.raises(PermissionRefusedError, match="MLFLOW_TRACKING_PASSWORD"):
        RegistryClient(60).aliases("guarded")


@pytest.mark.usefixtures("no_canary")
def test_releaser_with_edit_on_both_models_may_promote(guarded: Server, as_user: As) -> None:
    from mlflow.server import get_app_client

    as_user(ADMIN, PASSWORD)
    registered("released")
    make_user(guarded, RELEASER, "releaser-passw0rd-1")
    client = get_app_client("basic-auth", guarded.uri)
    for name in ("released", "released.history"):
        client.grant_user_permission(RELEASER, "registered_model", name, "EDIT")
    as_user(RELEASER, "releaser-passw0rd-1")
    done = promote(scene.config("target=models:/released/1"))
    assert done.entry == 2
    assert (
        show_history(scene.config("target=models:/released"), as_json=True)["entries"][-1]["who"]
        == RELEASER
    )


@pytest.mark.usefixtures("no_canary")
def test_report_of_a_user_who_may_only_read_decides_nothing(
    guarded: Server, as_user: As, caplog: pytest.LogCaptureFixture
) -> None:
    """The server lets her edit the experiment that she made, and neither the model nor the
    experiment of those who promote.
    """
    from mlflow.exceptions import MlflowException

    from steps.core import tags
    from steps.pipeline import artifact_lookup
    from steps.registry.result import RefusedError

    as_user(ADMIN, PASSWORD)
    experiment = mlflow.set_experiment("release").experiment_id
    with mlflow.start_run(experiment_id=experiment):
        onnx = scene.log_model("onnx")
        held = scene.log_report(
            [scene.candidate(onnx, "onnx", scene.FAST, decision="hold")], name="coveted"
        )
    commands.register(held, scene.config())
    mlflow.MlflowClient().set_registered_model_alias("coveted", "candidate", "1")
    make_user(guarded, "oscar", "oscar-passw0rd-1")

    as_user("oscar", "oscar-passw0rd-1")
    with mlflow.start_run(experiment_id=mlflow.create_experiment("of oscar")):
        forged = scene.log_report(
            [scene.candidate(onnx, "onnx", scene.FAST)], name="coveted", items=9999, pack="core"
        )
    with pytest.raises(MlflowException, match=r"Permission denied|403"):
        mlflow.MlflowClient().create_run(experiment)
    with pytest.raises(MlflowException, match=r"Permission denied|403"):
        mlflow.MlflowClient().set_model_version_tag("coveted", "1", "slm.evaluation", forged)

    as_user(ADMIN, PASSWORD)
    registry = RegistryClient(20)
    (verdict,) = commands.poll_once(
        scene.config("target=models:/coveted"),
        registry,
        partial(candidate_evaluation.run_evaluation, registry, ()),
    )
    assert not verdict.promoted and "verdict is 'hold'" in verdict.words
    assert "experiment 'of oscar', which does not count" in caplog.text
    with pytest.raises(RefusedError, match="experiment 'of oscar', which does not count"):
        promote(scene.config("target=models:/coveted/1", f"report_uri={forged}"))
    with pytest.raises(RefusedError, match="experiment 'of oscar', which does not count"):
        commands.register(forged, scene.config())
    assert "champion" not in (registry.aliases("coveted") or {})
    runs = artifact_lookup.finished_runs(
        {tags.STEP: "evaluate", tags.MODEL: "coveted"}, scene.config()
    )
    assert [run.data.tags[tags.OUTPUT] for run in runs] == [held]


@pytest.mark.usefixtures("no_canary")
def test_address_that_a_user_wrote_into_a_tag_gets_no_password(
    guarded: Server, as_user: As
) -> None:
    """Every user may make a model of a free name, a version of a logged model of her own, its tags
    and the alias that is watched.
    """
    as_user(ADMIN, PASSWORD)
    make_user(guarded, "trudy", "trudy-passw0rd-1")
    as_user("trudy", "trudy-passw0rd-1")
    client, names, listener = mlflow.MlflowClient(), list[str](), Listener()
    with mlflow.start_run(experiment_id=mlflow.create_experiment("of trudy")):
        model_id = scene.log_model("onnx")
    for number, address in enumerate(
        (
            f"mlflow-artifacts://{listener.address}/x/report.json",
            f"http://{listener.address}/report.json",
        )
    ):
        names.append(f"bait-{number}")
        client.create_registered_model(names[-1])
        given = {"slm.evaluation": address, "slm.evidence_digest": "sha256:1"}
        client.create_model_version(names[-1], f"models:/{model_id}", tags=given, model_id=model_id)
        client.set_registered_model_alias(names[-1], "candidate", "1")
    as_user(ADMIN, PASSWORD)
    mlflow.set_experiment("release")
    with listener:
        for name in names:
            for policy in ("", "promotion.evidence.experiments=[release]"):
                config = scene.config(f"target=models:/{name}", *filter(None, [policy]))
                commands.poll_once(config, RegistryClient(5), no_evaluation, again=[(name, 1)])
    assert listener.asked == []


def test_no_secret_or_home_is_left_anywhere(
    guarded: Server, as_user: As, postgres: Postgres, tmp_path: Path
) -> None:
    """Real commands with secrets in their environment, words and address; then every byte that they
    left is searched.
    """
    as_user(ADMIN, PASSWORD)
    registered("secretive")
    home = tmp_path / "home-of-alice"
    home.mkdir()
    token = "hf_abcdefghijklmnop"
    with_password = guarded.uri.replace("://", f"://{ADMIN}:{PASSWORD}@")
    environment = clean_environment(
        MLFLOW_TRACKING_URI=guarded.uri,
        MLFLOW_TRACKING_USERNAME=ADMIN,
        MLFLOW_TRACKING_PASSWORD=PASSWORD,
        HF_TOKEN=token,
        SLM_WEBHOOK_SECRET="webhook-secret-value",
        HOME=str(home),
    )
    said = ""
    target = "target=models:/secretive"
    work = tmp_path / "work"
    work.mkdir()
    environment["PYTHONPATH"] = str(ROOT)
    run_id = mlflow.search_runs(
        search_all_experiments=True, filter_string="tags.`slm.model` = 'secretive'"
    ).iloc[0]["run_id"]
    for words in (
        [
            "steps.register",
            f"report_uri=runs:/{run_id}/report.json",
            f"reason='{with_password} {home}/x'",
        ],
        ["steps.watch", target, "promotion.watch.once=true", f"reason='{with_password}'"],
        ["steps.promote", f"{target}/1", f"reason='see {with_password} and {home}/notes'"],
        ["steps.promote", f"{target}/77"],
        ["steps.rollback", f"{target}@champion"],
        ["steps.export", f"{target}/1", f"archive={home}/archive"],
        ["steps.history", target],
    ):
        done = subprocess.run(
            [str(BIN / "python"), "-m", *words],
            cwd=work,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        said += done.stdout + done.stderr
        # version 77 does not exist
        assert (done.returncode == 0) == (words[1] != f"{target}/77"), done.stdout + done.stderr
    dump = subprocess.run(
        [
            str(postgres.programs / "pg_dump"),
            "-h",
            "127.0.0.1",
            "-p",
            str(postgres.port),
            "-U",
            "mlflow",
            DATABASE,
        ],
        capture_output=True,
        check=True,
    ).stdout
    assert b"secretive.history" in dump
    places = {"the database": dump, "what was printed": said.encode()}
    for root in (guarded.folder / "artifacts", home / "archive", work):
        places |= {str(path): path.read_bytes() for path in root.rglob("*") if path.is_file()}
    assert len(places) > 10
    for place, content in places.items():
        for secret in (PASSWORD, token, "webhook-secret-value", str(home)):
            assert secret.encode() not in content, f"{secret} is in {place}"
    assert os.environ["MLFLOW_TRACKING_PASSWORD"] == PASSWORD


@pytest.mark.usefixtures("no_canary")
def test_history_made_before_the_model_by_a_user_who_may_read_is_not_believed(
    guarded: Server, as_user: As
) -> None:
    """She made it, so she would decide what the promoters' next look carries out; also where the
    model is a copy, and where it was deleted and made anew.
    """
    as_user(ADMIN, PASSWORD)
    make_user(guarded, "early", "early-passw0rd-1")
    registered("there-before")
    client = mlflow.MlflowClient()

    def squat(name: str) -> None:
        as_user("early", "early-passw0rd-1")
        record = Record("forged", "promote", (), "admin", "as agreed", authenticated=True)
        known_by = {KIND_TAG: "history", belonging.PROOF_TAG: "0" * 64}
        client.create_registered_model(f"{name}.history", tags=known_by)
        client.create_model_version(
            f"{name}.history",
            "models:/there-before/1",
            tags={RECORD_TAG: record.to_json(), SETTLED_TAG: "true"},
        )
        as_user(ADMIN, PASSWORD)

    squat("early")
    with pytest.raises(ForeignHistoryError, match="who may edit it, and deletes it, or confirms"):
        registered("early")
    assert RegistryClient(10).versions("early") == []
    squat("early-prod")
    client.create_registered_model("early-prod")
    client.copy_model_version("models:/there-before/1", "early-prod")
    with pytest.raises(ForeignHistoryError):
        promote(scene.config("target=models:/early-prod/1"))
    client.delete_registered_model("early.history")
    registered("early")
    client.delete_registered_model("early")
    with pytest.raises(ForeignHistoryError) as caught:
        registered("early")
    born = client.get_registered_model("early.history").creation_timestamp
    assert f"set_registered_model_tag('early', 'slm.history', '{born}')" in str(caught.value)
    client.set_registered_model_tag("early", "slm.history", str(born))
    registered("early")
    assert (RegistryClient(10).aliases("early") or {})["champion"] == 2
