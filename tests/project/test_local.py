"""A checkpoint folder, step by step: each command alone finds what the one before it made, and a
changed folder is said to be one.
"""

import json
import re
import shutil
from pathlib import Path

import pytest

from steps.snapshots.fetch import fetch
from steps.snapshots.store import Store
from tests.conftest import ROOT, Shell
from tests.snapshots.conftest import configured


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The tiny model as a folder of the user's."""
    store = Store()
    return Path(
        shutil.copytree(
            store.checkpoint(fetch(configured("tiny_phi3"), store)),
            tmp_path / "my checkpoint",
            copy_function=shutil.copyfile,
        )
    )


def test_a_step_alone_finds_the_fetch_of_its_folder(
    shell: Shell, tracking: str, folder: Path
) -> None:
    here = {"MLFLOW_TRACKING_URI": tracking, "MLFLOW_EXPERIMENT_NAME": "test"}

    def step(name: str) -> tuple[int, str]:
        words = ("python", "-m", f"steps.{name}", "model=local", f"model.path='{folder}'")
        done = shell(*words, cwd=ROOT, **here)
        return done.returncode, done.stdout + done.stderr

    def mended(printed: str) -> None:
        """Give the command that the error names, as a shell takes it."""
        (line,) = [line for line in printed.splitlines() if "error: snapshot_uri" in line]
        done = shell("sh", "-c", line.partition("make one: ")[2], cwd=ROOT, **here)
        assert done.returncode == 0, done.stdout + done.stderr

    code, printed = step("log_transformers")
    assert code != 0
    assert (
        "no finished run of fetch_model in the experiment 'test' fits this config (there is no"
        " finished run of it yet); make one: python -m steps.fetch_model" in printed
    )
    mended(printed)
    code, printed = step("log_transformers")
    assert code == 0, printed[-3000:]
    assert "snapshot_uri: taking runs:/" in printed

    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"rope_theta": 20000.0}))
    code, printed = step("log_transformers")
    assert code != 0
    assert (
        f"and since then config.json changed in model.path='{folder}'); make one: python -m"
        in printed
    )
    mended(printed)
    code, printed = step("log_transformers")
    assert code == 0, printed[-3000:]


@pytest.mark.slow
def test_a_sweep_of_a_folder_takes_its_three_commands(
    shell: Shell, tracking: str, folder: Path
) -> None:
    small = (
        "evaluate.builds=[int4_cpu] evaluate.max_items=4 evaluate.speed.rounds=1"
        " evaluate.fidelity.tokens=1088 evaluate.fidelity.window=64"
    )
    words = f"model.path='{folder}' {small}"
    done = shell(
        "make",
        "sweep",
        "MODEL=local",
        f"OVERRIDES={words}",
        cwd=ROOT,
        MLFLOW_TRACKING_URI=tracking,
        MLFLOW_EXPERIMENT_NAME="test",
    )
    printed = done.stdout + done.stderr
    assert done.returncode == 0, printed[-6000:]
    assert re.search(r"^int4_cpu +\d.* yes *$", printed, re.MULTILINE), printed
    assert printed.count("fetch_model for my-checkpoint") == 1
