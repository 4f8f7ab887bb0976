"""What is written on every run."""

from pathlib import Path

import mlflow
import pytest
from omegaconf import OmegaConf

from steps.core.errors import ConfigError, StepError, Terminated
from steps.pipeline import run as run_module
from steps.pipeline.compose import compose_config
from steps.pipeline.run import (
    git_state,
    leaves_of,
    name_refused,
    opened,
    repeating_command,
    subject,
)
from steps.pipeline.step import Step
from tests.core.test_commands import overrides_of


def test_leaves_are_dotted() -> None:
    config = OmegaConf.create({"a": {"b": 1, "c": None}, "d": [1, 2], "e": "x"})
    assert dict(leaves_of(config)) == {"a.b": "1", "a.c": "null", "d": "[1, 2]", "e": "x"}


def test_the_command_that_repeats_a_local_run_is_quoted() -> None:
    overrides = ("model=tiny_phi3", "evaluate.pack='my pack'")
    command = repeating_command("evaluate", overrides, {})
    assert command == (
        'mlflow run . -e evaluate --env-manager local -P model=tiny_phi3 -P evaluate.pack="my pack"'
    )
    assert overrides_of(command) == overrides


@pytest.mark.parametrize(
    ("step", "words", "about"),
    [
        ("promote", ["target=models:/mistral/1"], "mistral"),
        ("promote", ["target=models:/mistral@challenger"], "mistral"),
        ("promote", ["target=models:/m-odel"], "m-odel"),
        ("promote", [], "smollm2-135m-instruct"),
        ("evaluate", ["target=models:/mistral/1"], "smollm2-135m-instruct"),
        ("import", ["archive=/tmp/champion"], "champion"),
    ],
)
def test_a_run_is_named_after_what_it_is_about(step: str, words: list[str], about: str) -> None:
    keys = {"promote": ("target", "alias"), "import": ("archive",)}.get(step, ())
    known = Step(lambda _config, _run: "", step, f"steps.{step}", keys=keys)
    assert subject(known, compose_config(words)) == about


@pytest.mark.usefixtures("tracking")
def test_the_run_of_refused_words_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    with mlflow.start_run(run_name="bedecked-shark-12") as active:
        pass
    error = ConfigError("evaluate.max_itms", "4", "a key of the config")
    name_refused("main", error)  # not one that `mlflow run` made: nothing is done
    assert mlflow.get_run(active.info.run_id).info.run_name == "bedecked-shark-12"
    monkeypatch.setenv("MLFLOW_RUN_ID", active.info.run_id)
    name_refused("main", error)
    run = mlflow.get_run(active.info.run_id)
    assert run.info.run_name == "main refused: evaluate.max_itms"
    assert run.data.tags["mlflow.note.content"] == str(error)


def test_a_run_from_a_git_url_is_repeated_from_there(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(run_module, "ROOT", tmp_path)
    given = {
        "mlflow.source.git.repoURL": "https://git.example.org/x.git",
        "mlflow.source.git.commit": "0" * 40,
    }
    assert (
        repeating_command("main", (), given)
        == f"mlflow run https://git.example.org/x.git -v {'0' * 40} --env-manager local"
    )


def test_a_folder_without_git_is_said_to_be_one(tmp_path: Path) -> None:
    assert git_state(tmp_path) == ("unknown", "unknown")


@pytest.mark.usefixtures("tracking")
@pytest.mark.parametrize(
    ("end", "status"),
    [
        (None, "FINISHED"),
        (StepError("no"), "FAILED"),
        (Terminated(), "FAILED"),
        (KeyboardInterrupt(), "KILLED"),
    ],
)
def test_a_log_that_cannot_be_uploaded_hides_no_end(
    end: BaseException | None,
    status: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def refuse(_name: str, _start: int) -> None:
        raise OSError("the artifact store is away")

    monkeypatch.setattr(run_module, "upload_log", refuse)
    raised: BaseException | None = None
    try:
        with opened("step", "test") as run:
            if end is not None:
                raise end
    except (StepError, KeyboardInterrupt) as error:
        raised = error
    assert raised is end
    assert mlflow.get_run(run.run_id).info.status == status
    assert "the log could not be uploaded" in caplog.text
