"""The last lines on the screen: commands that work as they stand."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from steps.config.root import ROOT
from steps.pipeline.compose import compose_config
from steps.registry.result import Promotion, Row
from steps.registry.summary import QUESTION, commands, say_where_to_look, show
from tests.registry import scene

OWN = f"sqlite:///{ROOT}/mlflow.db"


@pytest.mark.parametrize(
    ("name", "alias", "ask"),
    [
        ("smollm2-135m-instruct", "champion", f'make ask Q="{QUESTION}"'),
        ("mine", "champion", f'make ask NAME=mine Q="{QUESTION}"'),
        ("smollm2-135m-instruct", "champion-edge", f'make ask ALIAS=champion-edge Q="{QUESTION}"'),
    ],
)
def test_what_is_not_the_default_is_named(name: str, alias: str, ask: str) -> None:
    assert commands(OWN, name, alias)["ask"] == ask


def test_the_default_is_what_make_ask_asks() -> None:
    config = compose_config([])
    assert (
        commands(OWN, config.model.registered_name, config.promotion.alias)["ask"]
        == f'make ask Q="{QUESTION}"'
    )


def test_paths_on_the_screen_stay_whole(
    tracking: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    import mlflow

    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    mlflow.MlflowClient().create_registered_model("tiny-phi3")
    say_where_to_look(compose_config(["model=tiny_phi3"]))
    assert f"look:   mlflow ui --backend-store-uri {tracking} " in capsys.readouterr().out


@pytest.mark.usefixtures("tracking")
def test_a_dry_run_of_a_new_model_ends_without_a_registered_model(
    capsys: pytest.CaptureFixture[str],
) -> None:
    say_where_to_look(compose_config(["model=tiny_phi3", "dry_run=true"]))
    assert "tiny-phi3 is not registered yet" in capsys.readouterr().out


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """The Makefile with a `python` that shows its words."""
    shutil.copy(ROOT / "Makefile", tmp_path)
    (tmp_path / "requirements.txt").touch()
    python = tmp_path / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text('#!/bin/sh\nprintf "<%s>" "$@"\n')
    python.chmod(0o755)
    (tmp_path / ".venv" / ".run").touch()
    return tmp_path


@pytest.mark.parametrize(
    "question", ["What is 2+2?", 'He said "it\'s $HOME", `ls` \\ $(shell ls) $$']
)
def test_make_ask_passes_the_question_as_it_was_typed(project: Path, question: str) -> None:
    # these tests may run below a make
    alone = {
        key: value for key, value in os.environ.items() if not key.startswith(("MAKE", "MFLAGS"))
    }
    words_of_make = ["make", "ask", f"Q={question}", "NAME=mine", "ALIAS=edge"]
    done = subprocess.run(
        words_of_make, cwd=project, env=alone, capture_output=True, text=True, check=True
    )
    words = f"-m steps.ask --model  --name mine --alias edge -- {question}"
    assert done.stdout == "".join(f"<{word}>" for word in words.split(" ", 9))


def test_make_serve_takes_a_name_as_a_uri_and_make_run_checks_its_words_first(
    project: Path,
) -> None:
    alone = {
        key: value for key, value in os.environ.items() if not key.startswith(("MAKE", "MFLAGS"))
    }
    shown = subprocess.run(
        ["make", "serve", "NAME=models:/mine", "PORT=0", "MODEL=/models/my one"],
        cwd=project,
        env=alone,
        capture_output=True,
        text=True,
        check=True,
    )
    words = ("-m", "steps.serve", "model=/models/my one", "target=models:/mine", "serve.port=0")
    assert shown.stdout == "".join(f"<{word}>" for word in words)
    python = project / ".venv" / "bin" / "python"
    python.write_text('#!/bin/sh\nprintf "<%s>" "$@"; exit 2\n')
    refused = subprocess.run(
        ["make", "run", "MODEL=a/b", "OVERRIDES=evaluate.max_itms=4"],
        cwd=project,
        env=alone,
        capture_output=True,
        text=True,
    )
    checked = "-m steps.check --quiet --store --model a/b --overrides evaluate.max_itms=4"
    assert refused.stdout == "".join(f"<{word}>" for word in checked.split())
    assert refused.returncode == 2  # `mlflow run`, which would make a run, is not reached


def test_make_refuses_another_python_in_one_line(tmp_path: Path) -> None:
    shutil.copy(ROOT / "Makefile", tmp_path)
    (tmp_path / "requirements.txt").touch()
    old = tmp_path / "python3.9"
    # what a Python of that version answers to the Makefile's question
    old.write_text(
        "#!/bin/sh\nexec "
        + sys.executable
        + ' -c "import sys; sys.version_info = (3, 9, 1); exec(sys.argv[1])" "$2"\n'
    )
    old.chmod(0o755)
    done = subprocess.run(
        ["make", "install", f"PYTHON={old}"], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 2
    (line,) = [line for line in done.stderr.splitlines() if "error:" in line]
    assert line.startswith(f"make: error: {old} is Python 3.9")
    assert not (tmp_path / ".venv").exists()


def row(number: int, variant: str, *aliases: str, gates: tuple[str, ...] = ()) -> Row:
    scores = {
        "quality/score": 0.453125,
        "quality/items": 128.0,
        "speed/decode_tokens_per_second": 122.556,
        "speed/ttft_p50_s": 0.0684,
        "memory/peak_rss_bytes": 1.2573e9,
    }
    decision = "hold" if gates else "promote"
    return Row("m", number, variant, "m-1", "", decision, aliases, scores, True, gates, "passed")


@pytest.mark.parametrize("columns", ["80", "112", "140"])
def test_the_closing_table_of_a_log_has_eighty_columns(
    columns: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", columns)  # of the terminal that the log is not shown in
    rows = (
        row(1, "transformers", "challenger-edge", "transformers"),
        row(12, "onnx", "champion-edge", "onnx", gates=("fidelity past the borders",)),
    )
    reason = "profile edge chose version 12 (onnx): " + "quality 45.3 % instead of 47.7 %, " * 3
    show(
        Promotion("register", "m", None, None, "edge", "champion-edge", rows, (), reason, None,
                  forced=False, dry_run=True)
    )  # fmt: skip
    printed = capsys.readouterr().out
    assert max(map(len, printed.splitlines())) <= 80
    for words in (
        *("1 transformers", "@challenger-edge", "45.3 % of 128", "122.6", "0.068 s", "1,257 MB"),
        *("dry run: nothing was changed", "borders", "instead of 47.7 %"),
    ):
        assert words in printed, printed


def test_the_last_lines_name_the_report_and_what_to_do_next(
    tracking: str, capsys: pytest.CaptureFixture[str]
) -> None:
    import mlflow

    client = mlflow.MlflowClient()
    client.create_registered_model("tiny-phi3")
    with mlflow.start_run() as run:
        mlflow.log_text("<p>", "report.html")
        model_id = scene.log_model("onnx")
    version = client.create_model_version("tiny-phi3", f"models:/{model_id}").version
    client.set_registered_model_alias("tiny-phi3", "champion", version)
    say_where_to_look(compose_config(["model=tiny_phi3"]), f"runs:/{run.info.run_id}/report.json")
    lines = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.strip().splitlines())
    assert list(lines) == ["report:", "look:", "ask:", "chat:", "serve:"]
    assert Path(lines["report:"]).read_text() == "<p>"
    assert lines["chat:"].endswith("-m steps.chat --name tiny-phi3")
    assert lines["serve:"].endswith("-m steps.serve target=models:/tiny-phi3")
    assert all(f"MLFLOW_TRACKING_URI={tracking} " in lines[f"{do}:"] for do in ("ask", "chat"))


def test_a_projects_own_database_needs_make_alone() -> None:
    assert commands(OWN, "mine", "champion") == {
        "look": "make ui   then http://127.0.0.1:5000/#/models/mine",
        "ask": f'make ask NAME=mine Q="{QUESTION}"',
        "chat": "make chat NAME=mine",
        "serve": "make serve NAME=mine",
    }
    edge = commands(OWN, "mine", "champion-edge")
    assert edge["chat"] == "make chat NAME=mine ALIAS=champion-edge"
    assert edge["serve"] == "make serve NAME=mine OVERRIDES=serve.alias=champion-edge"
    there = commands("http://mlflow", "mine", "champion-edge")["serve"]
    assert there.endswith("-m steps.serve target=models:/mine serve.alias=champion-edge")
