"""The last lines on the screen: commands that work as they stand."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from steps.config.root import ROOT
from steps.pipeline.compose import compose_config
from steps.registry.summary import QUESTION, commands, say_where_to_look

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
    assert commands(OWN, name, alias)[1] == ask


def test_the_default_is_what_make_ask_asks() -> None:
    config = compose_config([])
    assert (
        commands(OWN, config.model.registered_name, config.promotion.alias)[1]
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
    assert f"look:  mlflow ui --backend-store-uri {tracking} " in capsys.readouterr().out


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
    words = f"-m steps.ask --model smollm2_135m --name mine --alias edge -- {question}"
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
