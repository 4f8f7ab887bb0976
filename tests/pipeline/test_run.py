"""What is written on every run."""

import shlex
from pathlib import Path

import mlflow
import pytest
from omegaconf import OmegaConf

from steps.core.errors import StepError, Terminated
from steps.pipeline import run as run_module
from steps.pipeline.arguments import translate
from steps.pipeline.run import git_state, leaves_of, opened, repeating_command


def test_leaves_are_dotted() -> None:
    config = OmegaConf.create({"a": {"b": 1, "c": None}, "d": [1, 2], "e": "x"})
    assert dict(leaves_of(config)) == {"a.b": "1", "a.c": "null", "d": "[1, 2]", "e": "x"}


def test_the_command_that_repeats_a_local_run_is_quoted() -> None:
    overrides = ("model=tiny_phi3", "evaluate.pack='my pack'")
    words = shlex.split(repeating_command("evaluate", overrides, {}))
    assert words[:-1] == ["mlflow", "run", ".", "-e", "evaluate", "--env-manager", "local", "-P"]
    assert translate(["--overrides", words[-1].removeprefix("overrides=")]).overrides == overrides


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
    def refuse() -> None:
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
