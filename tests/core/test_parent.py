"""A step that was started by `mlflow run` does not outlive it."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from tests.conftest import ROOT, clean_environment

# what MLflow does: a shell that starts the step, with the run's id in the environment, and is not
# ended with it
STEP = """
import time
from steps.core.errors import Terminated
from steps.pipeline.launcher import heed_sigterm
from steps.core.parent import end_with_parent
heed_sigterm()
end_with_parent()
print("up", flush=True)
try:
    time.sleep(60)
except Terminated:
    raise SystemExit(143)
"""
MLFLOW = """
import os, subprocess, sys
step = subprocess.Popen(["bash", "-c", f"{sys.executable} -c '{sys.argv[1]}'; true"], stdout=sys.stdout)
step.wait()
"""  # noqa: E501


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGKILL])
@pytest.mark.parametrize("run_id", ["0123", ""])
def test_a_step_ends_with_what_started_it(run_id: str, end: signal.Signals) -> None:
    """By `mlflow run`, behind a shell; what a person starts in a script of his own goes on."""
    environment = {**os.environ, "MLFLOW_RUN_ID": run_id}
    command = [sys.executable, "-c", MLFLOW, STEP]
    with subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True
    ) as starter:
        assert starter.stdout is not None and starter.stdout.readline() == "up\n"
        family = psutil.Process(starter.pid).children(recursive=True)
        assert len(family) == 2
        starter.send_signal(end)
        starter.wait(10)
        gone, left = psutil.wait_procs(family, timeout=8 if run_id else 2)
        for process in left:
            process.kill()
        assert (len(gone), len(left)) == ((2, 0) if run_id else (0, 2))


@pytest.mark.slow
@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGKILL])
def test_watch_ends_with_mlflow_run(end: signal.Signals, migrated_database: Path) -> None:
    """The real command line; the server is an empty store."""
    environment = clean_environment(MLFLOW_TRACKING_URI=f"sqlite:///{migrated_database}")
    words = [
        "mlflow",
        "run",
        ".",
        "-e",
        "watch",
        "--env-manager",
        "local",
        "-P",
        "promotion.watch.interval=1",
    ]
    with subprocess.Popen(
        words,
        cwd=ROOT,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    ) as command:
        deadline = time.monotonic() + 120
        watching: list[psutil.Process] = []
        while not watching and time.monotonic() < deadline:
            family = psutil.Process(command.pid).children(recursive=True)
            watching = [
                process
                for process in family
                if "steps.watch" in process.cmdline() and process.name() not in ("bash", "sh")
            ]
            time.sleep(0.5)
        assert watching
        time.sleep(10)  # it has opened its run
        command.send_signal(end)
        command.wait(20)
        assert psutil.wait_procs(watching, timeout=20)[1] == []
