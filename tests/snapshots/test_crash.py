"""Killed at any moment, raced by another process: no half snapshot is ever taken for a whole
one.
"""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from steps.snapshots.store import Store
from tests.snapshots.hub_server import Hub, Repo, serve

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def hub(checkpoint: Path) -> Iterator[Hub]:
    """A hub that serves the checkpoint folder."""
    with serve(
        Hub({"someone/small": Repo("a" * 40, {path.name: path for path in checkpoint.iterdir()})})
    ) as served:
        yield served


def environment(hub: Hub, tmp_path: Path) -> dict[str, str]:
    """Variables for a child whose client asks the hub and keeps its cache here."""
    return os.environ | {
        "HF_ENDPOINT": hub.url,
        "HF_HOME": str(tmp_path / "hf"),
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    }


@pytest.mark.parametrize(
    ("kind", "stride", "least"),
    [
        ("folder", 3, 12),
        ("build", 3, 6),
        # its threads change the order of events from run to run: over time this covers them all
        ("hub", 24, 6),
        *(
            pytest.param(kind, 1, least, marks=(pytest.mark.slow, pytest.mark.timeout(1800)))
            for kind, least in (("folder", 40), ("build", 20))
        ),
        pytest.param(
            "hub", 1, 150, marks=(pytest.mark.slow, pytest.mark.volume, pytest.mark.timeout(1800))
        ),
    ],
)
def test_killed_at_every_step(
    kind: str, stride: int, least: int, checkpoint: Path, hub: Hub, tmp_path: Path
) -> None:
    command = [
        sys.executable,
        "-m",
        "tests.snapshots.killed",
        kind,
        str(checkpoint),
        str(tmp_path / "store"),
        str(stride),
    ]
    done = subprocess.run(
        command,
        cwd=ROOT,
        env=environment(hub, tmp_path),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    kills = re.fullmatch(r"killed (\d+) times\n", done.stdout)
    assert kills and int(kills[1]) >= least, done.stdout


FETCH = """
import sys
from steps.snapshots.fetch import fetch
from steps.snapshots.store import Store
from tests.snapshots.conftest import configured
store = Store(sys.argv[1])
sys.stdin.readline()
snapshot = fetch(configured("smollm2_135m_hub", repo="someone/small", revision="a" * 40), store)
print(snapshot.digest, store.checkpoint(snapshot))
"""


def test_two_at_once_take_turns(hub: Hub, tmp_path: Path) -> None:
    command = [sys.executable, "-c", FETCH, str(tmp_path / "store")]
    racers = [
        subprocess.Popen(
            command,
            cwd=ROOT,
            env=environment(hub, tmp_path),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(3)
    ]
    for racer in racers:
        assert racer.stdin is not None
        racer.stdin.write("go\n")
        racer.stdin.flush()
    answers = [racer.communicate(timeout=60)[0] for racer in racers]
    assert [racer.returncode for racer in racers] == [0, 0, 0]
    assert len(set(answers)) == 1
    assert hub.bodies("model.safetensors") == 1
    assert list((Store(tmp_path / "store").root / "scratch").iterdir()) == []
