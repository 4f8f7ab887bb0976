"""Threads: what is set, else the cores this process may use."""

import os
import subprocess
import sys

import pytest

from steps.config.root import ROOT
from steps.wrappers.served.settings import Settings

COUNT = "from steps.wrappers.served.settings import Settings; print(Settings().intra_op_threads)"


def counted(**environment: str) -> int:
    done = subprocess.run(
        [sys.executable, "-c", COUNT], cwd=ROOT, env={**os.environ, **environment}, capture_output=True, text=True, check=True, timeout=120
    )
    return int(done.stdout)


def test_threads_that_are_set_are_taken() -> None:
    assert Settings(threads=7).intra_op_threads == 7


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system has no affinity")
def test_threads_stay_within_the_affinity() -> None:
    mine = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(mine)})  # a child inherits it
        assert counted() == 1
    finally:
        os.sched_setaffinity(0, mine)


def test_threads_can_be_limited_from_outside() -> None:
    assert counted(LOKY_MAX_CPU_COUNT="1") == 1
