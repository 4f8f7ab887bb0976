"""`mlflow run` of the whole chain: what it leaves in the tracking store and the registry, and what
it says.
"""

import json
import re
import sqlite3
from pathlib import Path

import pytest
from mlflow.entities import Run
from mlflow.tracking import MlflowClient

from tests.conftest import ROOT, Shell
from tests.project.conftest import CANARY, ChainRun

STEPS = ["fetch_model", "log_transformers", "log_onnx_wrapper", "evaluate", "register"]


def runs_of(client: MlflowClient) -> list[Run]:
    return list(client.search_runs(["0"], order_by=["attributes.start_time ASC"]))


@pytest.fixture(scope="session")
def client(tiny_chain: ChainRun) -> MlflowClient:
    return MlflowClient(tiny_chain.uri, tiny_chain.uri)


def test_every_step_is_a_finished_child_of_main(client: MlflowClient) -> None:
    runs = {run.data.tags["slm.step"]: run for run in runs_of(client)}
    main = runs.pop("main")
    assert sorted(runs) == sorted(STEPS)
    for name, run in runs.items():
        assert run.info.status == "FINISHED", name
        assert run.data.tags["mlflow.parentRunId"] == main.info.run_id
        assert run.data.tags["mlflow.project.entryPoint"] == name


def test_steps_hand_over_by_uri(client: MlflowClient) -> None:
    tags = {run.data.tags["slm.step"]: run.data.tags for run in runs_of(client)}
    assert tags["log_transformers"]["slm.input.snapshot_uri"] == tags["fetch_model"]["slm.output"]
    assert tags["log_onnx_wrapper"]["slm.input.snapshot_uri"] == tags["fetch_model"]["slm.output"]
    assert tags["evaluate"]["slm.input.transformers_uri"] == tags["log_transformers"]["slm.output"]
    assert tags["evaluate"]["slm.input.onnx_uri"] == tags["log_onnx_wrapper"]["slm.output"]
    assert tags["register"]["slm.input.report_uri"] == tags["evaluate"]["slm.output"]
    assert re.fullmatch(r"runs:/[0-9a-f]{32}/snapshot\.json", tags["fetch_model"]["slm.output"])
    assert re.fullmatch(r"models:/m-[0-9a-f]{32}", tags["log_onnx_wrapper"]["slm.output"])


def test_every_run_says_how_it_came_to_be(client: MlflowClient) -> None:
    for run in runs_of(client):
        tags = run.data.tags
        assert tags["slm.command"].startswith("mlflow run . "), tags["slm.step"]
        assert "model=tiny_phi3" in tags["slm.command"]
        assert tags["slm.command"] in tags["mlflow.note.content"]
        assert re.fullmatch(r"[0-9a-f]{40}|unknown", tags["slm.git_commit"])
        assert tags["slm.git_dirty"] in ("clean", "dirty", "unknown")
        assert run.data.params["model.registered_name"] == "tiny-phi3"
        names = {item.path for item in client.list_artifacts(run.info.run_id)}
        assert {"config.yaml", "packages.txt", "logs"} <= names


def test_each_step_has_its_own_log_and_main_has_all_that_it_said(client: MlflowClient) -> None:
    logs = {
        name: client.download_artifacts(run.info.run_id, f"logs/{name}.log")
        for run in runs_of(client)
        for name in [run.data.tags["slm.step"]]
    }
    said = {name: Path(path).read_text() for name, path in logs.items()}
    assert "register for tiny-phi3 →" in said["register"]
    assert "register: running" not in said["register"]  # main said it
    assert "fetch_model: running" in said["main"]
    assert "register for tiny-phi3 →" in said["main"]


def test_two_versions_end_in_the_registry_with_their_evidence(client: MlflowClient) -> None:
    versions = {
        version.tags["slm.variant"]: version
        for version in client.search_model_versions("name='tiny-phi3'")
    }
    assert sorted(versions) == ["onnx", "transformers"]
    report = next(
        run.data.tags["slm.output"]
        for run in runs_of(client)
        if run.data.tags["slm.step"] == "evaluate"
    )
    for version in versions.values():
        assert version.tags["slm.evaluation"] == report
        assert version.tags["slm.snapshot_revision"] == "seed-0"
        assert version.tags["slm.fingerprint"].startswith("sha256:")


def test_the_closing_table_and_the_commands_are_printed(tiny_chain: ChainRun) -> None:
    lines = tiny_chain.printed.splitlines()
    (heading,) = [line for line in lines if "version" in line and "verdict" in line]
    for column in ("quality", "tokens/s", "first token", "memory"):
        assert column in heading
    for variant in ("transformers", "onnx"):
        assert [line for line in lines if re.match(rf" *\d+ {variant} ", line)], tiny_chain.printed
    for name in STEPS:
        assert re.search(rf"\[\d/5\] {name} ", tiny_chain.printed), name
    assert f"look:   mlflow ui --backend-store-uri {tiny_chain.uri}" in tiny_chain.printed
    # random weights pass no quality gate
    assert "ask:    not yet: tiny-phi3 has no champion" in tiny_chain.printed


def test_a_second_chain_takes_what_is_there_and_adds_no_version(
    tiny_chain: ChainRun, shell: Shell, client: MlflowClient
) -> None:
    before = {version.version for version in client.search_model_versions("name='tiny-phi3'")}
    words = (
        "mlflow",
        "run",
        str(ROOT),
        "--env-manager",
        "local",
        "-P",
        "model=tiny_phi3",
        "-P",
        "overrides=evaluate=smoke",
    )
    done = shell(*words, cwd=tiny_chain.folder, HF_TOKEN=CANARY)
    assert done.returncode == 0, done.stderr[-3000:]
    for name in STEPS[:4]:
        assert re.search(rf"{name}  reused from run [0-9a-f]{{32}}", done.stdout), done.stdout
    assert {
        version.version for version in client.search_model_versions("name='tiny-phi3'")
    } == before


LOAD = """
import json, sys, mlflow
model = mlflow.pyfunc.load_model(sys.argv[1])
chat = model.predict({"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 4})
print(json.dumps(chat))
"""


def test_every_logged_model_answers_in_a_fresh_process_elsewhere(
    tiny_chain: ChainRun, shell: Shell, client: MlflowClient, tmp_path: Path
) -> None:
    uris = [
        run.data.tags["slm.output"]
        for run in runs_of(client)
        if run.data.tags["slm.output"].startswith("models:/")
    ]
    assert len(uris) == 2
    for uri in uris:
        done = shell("python", "-c", LOAD, uri, cwd=tmp_path, MLFLOW_TRACKING_URI=tiny_chain.uri)
        assert done.returncode == 0, done.stderr[-3000:]
        (completion,) = json.loads(done.stdout.splitlines()[-1])
        assert completion["object"] == "chat.completion"
        assert completion["choices"][0]["message"]["role"] == "assistant"
        assert completion["usage"]["completion_tokens"] <= 4


def test_nothing_is_left_running(client: MlflowClient) -> None:
    assert [run.info.run_id for run in runs_of(client) if run.info.status == "RUNNING"] == []


def test_no_secret_and_no_home_folder_reaches_the_store(tiny_chain: ChainRun) -> None:
    kinds = (".yaml", ".json", ".txt", ".log", ".html")
    written = {
        str(path): path.read_text()
        for path in tiny_chain.folder.rglob("*")
        if path.is_file() and path.suffix in kinds
    }
    assert written
    written |= {row[:200]: row for row in dump(tiny_chain.folder / "mlflow.db")}
    for name, text in written.items():
        assert CANARY not in text, name
        # MLflow itself writes where a project and its artifacts are
        for place in (ROOT, tiny_chain.folder):
            text = text.replace(str(place), "")
        assert f"{Path.home()}/" not in text, name


def dump(database: Path) -> list[str]:
    """Every row of a SQLite database as text."""
    with sqlite3.connect(database) as connection:
        return list(connection.iterdump())
