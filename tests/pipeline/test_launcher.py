"""SIGTERM is heeded at whatever moment it comes, and files of secrets are kept from children."""

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import mlflow
import pytest

from steps.config.root import Config
from steps.core import visible
from steps.core.errors import StepError
from steps.pipeline import launcher
from steps.pipeline.step import Step, StepRun
from tests.conftest import ROOT

WITHIN_A_FINALISER = """
import os, signal, time
from steps.core.errors import Terminated
from steps.pipeline.launcher import heed_sigterm

class Closing:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0)  # where the handler runs; what it raises here is ignored by Python

heed_sigterm()
try:
    del_me = Closing()
    del del_me
    print("ignored", flush=True)
    signal.pause()
except Terminated:
    print("heeded")
"""


def test_sigterm_within_a_finaliser_is_heeded_after_it() -> None:
    done = subprocess.run(
        [sys.executable, "-c", WITHIN_A_FINALISER],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.stdout.split(), done.returncode) == (["ignored", "heeded"], 0), done.stderr


def test_files_that_the_settings_name_are_kept_from_children(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("key.pem", "secret"):
        (tmp_path / name).write_text("")
    settings = SimpleNamespace(
        signing_key=str(tmp_path / "key.pem"),
        notifications=SimpleNamespace(secret_file=str(tmp_path / "secret")),
        experiment="x",
    )
    monkeypatch.setattr(visible, "named_files", {})
    monkeypatch.setattr(launcher, "typed", lambda _: settings)

    def opened(_name: str, _experiment: str) -> None:
        raise StepError("it goes no further here")

    monkeypatch.setattr("steps.pipeline.run.opened", opened)
    nothing: Any = SimpleNamespace(name="nothing")
    with pytest.raises(StepError, match="it goes no further here"):
        launcher.run_step(nothing, nothing, ())
    assert {str(tmp_path / "key.pem"), str(tmp_path / "secret")} <= set(visible.secret({}))


def test_a_folder_that_cannot_be_written_says_where_else_the_log_may_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from steps.pipeline.arguments import translate

    monkeypatch.chdir(tmp_path)
    launcher._require_output_folder(translate([]))
    monkeypatch.setattr("os.access", lambda _path, _mode: False)  # root may write anywhere
    with pytest.raises(StepError, match=rf"{tmp_path} cannot be written, .* pass hydra\.run\.dir="):
        launcher._require_output_folder(translate([]))
    with pytest.raises(StepError, match=r"pass hydra\.sweep\.dir="):
        launcher._require_output_folder(translate(["-m", "evaluate.seed=1,2"]))
    launcher._require_output_folder(translate(["hydra.run.dir=/tmp/elsewhere"]))


@pytest.mark.usefixtures("tracking")
def test_the_run_of_a_step_that_only_reads_is_named_after_what_it_shows(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with mlflow.start_run(run_name="bedecked-shark-12") as active:
        pass
    seen: list[str] = []

    def body(_config: Config, run: StepRun) -> str:
        seen.append(run.run_id)
        return ""

    monkeypatch.setenv("MLFLOW_RUN_ID", active.info.run_id)
    monkeypatch.setattr(sys, "argv", ["history", "target=models:/mistral"])
    launcher.launch(Step(body, "history", "steps.history", makes_run=False, keys=("target",)))
    assert seen == [active.info.run_id]
    assert mlflow.get_run(active.info.run_id).info.run_name == "history mistral"
