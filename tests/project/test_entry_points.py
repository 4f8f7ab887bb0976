"""Entry points by themselves, with good and with bad input."""

import sqlite3
from pathlib import Path

import pytest

from tests.conftest import ROOT, Shell


def statuses(folder: Path) -> list[tuple[str, str]]:
    with sqlite3.connect(folder / "mlflow.db") as database:
        return list(database.execute("select status, name from runs"))


def mlflow_run(shell: Shell, folder: Path, *words: str) -> tuple[int, str]:
    done = shell("mlflow", "run", str(ROOT), "--env-manager", "local", *words, cwd=folder)
    return done.returncode, done.stdout + done.stderr


def test_a_bad_value_is_one_line_and_a_failed_run(shell: Shell, tmp_path: Path) -> None:
    code, printed = mlflow_run(shell, tmp_path, "-e", "fetch_model", "-P", "model=nope")
    assert code != 0
    (line,) = [line for line in printed.splitlines() if "error:" in line]
    assert line.startswith("fetch_model: error: model='nope': expected one of hub, local, phi3")
    # MLflow has made a run by then; it says why nothing was run
    assert statuses(tmp_path) == [("FAILED", "fetch_model refused: model")]


def test_an_undeclared_parameter_is_an_override(shell: Shell, tmp_path: Path) -> None:
    code, printed = mlflow_run(
        shell,
        tmp_path,
        "-e",
        "fetch_model",
        "-P",
        "model=tiny_phi3",
        "-P",
        "evaluate.max_new_tokens=7",
    )
    assert code == 0, printed[-3000:]
    with sqlite3.connect(tmp_path / "mlflow.db") as database:
        assert database.execute(
            "select value from params where key = 'evaluate.max_new_tokens'"
        ).fetchall() == [("7",)]


def test_a_step_without_its_input_names_the_command_that_makes_it(
    shell: Shell, tmp_path: Path
) -> None:
    code, printed = mlflow_run(shell, tmp_path, "-e", "log_transformers", "-P", "model=tiny_phi3")
    assert code != 0
    assert (
        "log_transformers: error: snapshot_uri is not given and no finished run of fetch_model in"
        " the experiment 'Default' fits this config" in printed
    )
    assert "mlflow run . -e fetch_model --env-manager local -P model=tiny_phi3" in printed
    assert "Traceback" not in printed
    assert [status for status, _ in statuses(tmp_path)] == ["FAILED"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("evaluate.seed=x",), "fetch_model: error: evaluate.seed='x': expected an integer"),
        (("model=local",), "fetch_model: error: model.path=None: expected a value"),
        (("tiny_phi3",), "fetch_model: error: overrides='tiny_phi3': expected key=value"),
        (
            ("--cfg", "job", "evaluate.sed=1"),
            (
                "fetch_model: error: evaluate.sed='1': expected a key of the config; did you mean"
                " evaluate.seed"
            ),
        ),
        (("-m", "onnx=int4_cpu,nope"), "fetch_model: error: onnx='nope': expected one of"),
        (
            ("-m", "onnx=int4_cpu,fp32_cpu", "hydra/launcher=joblib"),
            "fetch_model: error: hydra/launcher='joblib': expected one of basic",
        ),
    ],
)
def test_bad_words_end_with_2_before_anything_heavy(
    shell: Shell, tmp_path: Path, words: tuple[str, ...], message: str
) -> None:
    done = shell(
        "python",
        "-X",
        "importtime",
        "-m",
        "steps.fetch_model",
        *words,
        cwd=ROOT,
        MLFLOW_TRACKING_URI=f"sqlite:///{tmp_path}/x.db",
    )
    assert done.returncode == 2
    errors = [line for line in done.stderr.splitlines() if not line.startswith("import time:")]
    assert len(errors) == 1
    assert errors[0].startswith(message)
    imported = {
        line.rsplit("|", 1)[-1].strip()
        for line in done.stderr.splitlines()
        if line.startswith("import time:")
    }
    assert not imported & {"mlflow", "torch", "transformers", "pandas"}
    assert not (tmp_path / "x.db").exists()


def test_printing_the_config_makes_no_run(shell: Shell, tmp_path: Path) -> None:
    done = shell(
        "python",
        "-m",
        "steps.evaluate",
        "model=tiny_phi3",
        "--cfg",
        "job",
        cwd=ROOT,
        MLFLOW_TRACKING_URI=f"sqlite:///{tmp_path}/x.db",
    )
    assert done.returncode == 0
    assert "registered_name: tiny-phi3" in done.stdout
    assert not (tmp_path / "x.db").exists()


def test_a_multirun_nests_its_jobs_under_one_parent(shell: Shell, tmp_path: Path) -> None:
    code, printed = mlflow_run(
        shell, tmp_path, "-e", "fetch_model", "-P", "overrides=-m model=tiny_phi3 model.seed=0,1"
    )
    assert code == 0, printed[-3000:]
    with sqlite3.connect(tmp_path / "mlflow.db") as database:
        (parent,) = database.execute(
            "select run_uuid from runs where name = 'fetch_model (multirun)'"
        ).fetchone()
        children = database.execute(
            "select run_uuid from tags where key = 'mlflow.parentRunId' and value = ?", (parent,)
        ).fetchall()
        tags = dict(database.execute("select key, value from tags where run_uuid = ?", (parent,)))
    assert len(children) == 2
    assert (
        tags["slm.command"]
        == 'mlflow run . -e fetch_model --env-manager local -P overrides="-m model=tiny_phi3'
        ' model.seed=0,1"'
    )
    assert tags["slm.overrides"] == "model=tiny_phi3 model.seed=0,1"
    assert tags["slm.git_commit"]
    assert list(tmp_path.rglob(f"{parent}/artifacts/packages.txt"))
    assert {status for status, _ in statuses(tmp_path)} == {"FINISHED"}


def test_history_shows_its_config_and_takes_no_multirun(shell: Shell, tmp_path: Path) -> None:
    store = f"sqlite:///{tmp_path}/x.db"
    shown = shell(
        "python",
        "-m",
        "steps.history",
        "target=models:/x",
        "--cfg",
        "job",
        cwd=ROOT,
        MLFLOW_TRACKING_URI=store,
    )
    assert shown.returncode == 0, shown.stderr
    assert "target: models:/x" in shown.stdout
    refused = shell(
        "python",
        "-m",
        "steps.history",
        "-m",
        "target=models:/x,models:/y",
        cwd=ROOT,
        MLFLOW_TRACKING_URI=store,
    )
    assert (refused.returncode, refused.stderr.count("\n")) == (2, 1)
    assert refused.stderr.startswith("history: error: overrides='-m': expected key=value")
    assert not (tmp_path / "x.db").exists()


def test_a_multirun_without_a_server_is_one_line(shell: Shell) -> None:
    # discard, where nobody listens
    away = {"MLFLOW_TRACKING_URI": "http://127.0.0.1:9", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0"}
    done = shell(
        "python",
        "-m",
        "steps.fetch_model",
        "-m",
        "model=tiny_phi3",
        "model.seed=0,1",
        cwd=ROOT,
        **away,
    )
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "fetch_model: error: MLflow at http://127.0.0.1:9 does not answer" in done.stderr


def test_a_terminated_chain_ends_its_child_and_says_so(tmp_path: Path) -> None:
    import signal
    import subprocess
    import time

    import psutil

    from tests.conftest import clean_environment

    environment = clean_environment(
        MLFLOW_TRACKING_URI=f"sqlite:///{tmp_path}/mlflow.db", SLM_STORE=str(tmp_path / "store")
    )
    with subprocess.Popen(
        ["python", "-m", "steps.main", "model=tiny_phi3"], cwd=ROOT, env=environment
    ) as process:
        deadline = time.monotonic() + 100
        # what its child makes first
        while time.monotonic() < deadline and not (tmp_path / "store").exists():
            time.sleep(0.1)
        children = psutil.Process(process.pid).children(recursive=True)
        assert any("steps.fetch_model" in " ".join(child.cmdline()) for child in children)
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 128 + signal.SIGTERM
        assert psutil.wait_procs(children, timeout=10)[1] == []
    assert [status for status, _ in statuses(tmp_path)] == ["FAILED", "FAILED"]


def test_a_killed_step_is_not_left_running(tmp_path: Path) -> None:
    import signal
    import subprocess
    import time

    from tests.conftest import clean_environment

    environment = clean_environment(
        MLFLOW_TRACKING_URI=f"sqlite:///{tmp_path}/mlflow.db", SLM_STORE=str(tmp_path / "store")
    )
    with subprocess.Popen(
        ["python", "-m", "steps.fetch_model", "model=tiny_phi3"], cwd=ROOT, env=environment
    ) as process:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and not (tmp_path / "store").exists():
            time.sleep(0.1)
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) != 0
    assert [status for status, _ in statuses(tmp_path)] == ["FAILED"]
