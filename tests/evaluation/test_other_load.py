"""What else kept the machine busy: the arithmetic by hand, and a machine that really is."""

import subprocess
import sys
import time

import pytest

from steps.evaluation import other_load
from steps.evaluation.other_load import CpuTimes, OtherLoad, between


def test_what_is_neither_idle_nor_stolen_nor_ours_is_of_others() -> None:
    before = CpuTimes(total=1000.0, idle=500.0, stolen=10.0, own=100.0)
    after = CpuTimes(total=1020.0, idle=502.0, stolen=11.0, own=112.0)
    load = between(before, after, 0.1)
    assert load is not None
    assert (load.others, load.stolen, load.idle) == pytest.approx((0.25, 0.05, 0.1))
    assert between(before, before, 0.1) is None


@pytest.mark.parametrize(
    ("load", "words"),
    [
        (OtherLoad(0.02, 0.0, 0.05, 0.1), ""),
        # other processes that leave enough idle take nothing away
        (OtherLoad(0.40, 0.0, 0.45, 0.1), ""),
        (OtherLoad(0.40, 0.0, 0.05, 0.1), "other processes took 40 % of the CPU time"),
        (OtherLoad(0.02, 0.2, 0.5, 0.1), "other guests of the host took 20 % of the CPU time"),
        # unless they are let
        (OtherLoad(0.40, 0.1, 0.05, 0.5), ""),
        (OtherLoad(0.95, 0.0, 0.0, 1.0), ""),
        (OtherLoad(0.3, 0.6, 0.0, 1.0), ""),
        (
            OtherLoad(0.3, 0.1, 0.0, 0.1),
            "other processes took 30 % of the CPU time and other guests of the host took 10 % of"
            " the CPU time",
        ),
    ],
)
def test_a_busy_machine_is_told_from_a_quiet_one(load: OtherLoad, words: str) -> None:
    assert load.words == words and load.busy is bool(words)


def test_own_processes_are_not_others() -> None:
    """What this process starts counts as its own: a child that computes for half a second."""
    code = "import time\nend = time.process_time() + 0.5\nwhile time.process_time() < end: pass"
    before = other_load.now()
    with subprocess.Popen([sys.executable, "-c", code]):
        time.sleep(0.3)
        during = other_load.now()
    after = other_load.now()
    assert during.own > before.own
    assert 0.4 < after.own - before.own < 2
