"""What else kept the machine busy while candidates were timed: figures taken in such company say
little about a model.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import psutil

# of the share that other processes may take, what other guests of the host may (steal time): the
# kernel shows only a part of what they disturb
STOLEN_PART = 0.5
# with as much of the CPU time left idle, other processes took nothing from the candidates
ENOUGH_IDLE = 0.25


@dataclass(frozen=True)
class CpuTimes:
    """CPU seconds since the machine started, over the CPUs that this process may use."""

    total: float
    idle: float  # waiting for disks included
    stolen: float
    own: float  # of this process, what it started, and what that started


@dataclass(frozen=True)
class OtherLoad:
    """Shares of the CPU time of a period, each from 0 to 1.

    Attributes:
        others: of other processes.
        stolen: of other guests of the host.
        idle: not used by any process, waiting for disks included.
        allowed: what ``others`` may be at most, ``evaluate.speed.max_other_load``.
    """

    others: float
    stolen: float
    idle: float
    allowed: float

    @property
    def busy(self) -> bool:
        """Whether timings of this period are of no use; never where all load is allowed."""
        if self.allowed >= 1:
            return False
        crowded = self.others > self.allowed and self.idle < ENOUGH_IDLE
        return crowded or self.stolen > STOLEN_PART * self.allowed

    @property
    def words(self) -> str:
        """What was taken, where it was too much; empty elsewhere."""
        if not self.busy:
            return ""
        taken = [
            (self.others, self.allowed, "other processes"),
            (self.stolen, STOLEN_PART * self.allowed, "other guests of the host"),
        ]
        return " and ".join(
            f"{who} took {100 * share:.0f} % of the CPU time"
            for share, most, who in taken
            if share > most
        )


@dataclass
class Watch:
    """The load of a period, once it is over."""

    load: OtherLoad | None = None


@contextmanager
def watched(allowed: float) -> Iterator[Watch]:
    """Watch the machine until the block ends; the processes to be timed live as long."""
    watch, before = Watch(), now()
    yield watch
    watch.load = between(before, now(), allowed)


def between(before: CpuTimes, after: CpuTimes, allowed: float) -> OtherLoad | None:
    """The load between two looks; None where no CPU time passed."""
    total = after.total - before.total
    if total <= 0:
        return None
    idle, stolen = after.idle - before.idle, after.stolen - before.stolen
    others = total - idle - stolen - (after.own - before.own)
    others, stolen, idle = (min(1.0, max(0.0, part / total)) for part in (others, stolen, idle))
    return OtherLoad(others, stolen, idle, allowed)


def now() -> CpuTimes:
    """A look at the clocks."""
    every = psutil.cpu_times(percpu=True)
    mine = [every[number] for number in _usable(len(every)) if number < len(every)]
    # a guest's time is in user, or nice, as well
    total = sum(sum(one) - getattr(one, "guest", 0) - getattr(one, "guest_nice", 0) for one in mine)
    return CpuTimes(
        total=total,
        idle=sum(one.idle + getattr(one, "iowait", 0.0) for one in mine),
        stolen=sum(getattr(one, "steal", 0.0) for one in mine),
        own=_own(),
    )


def _usable(count: int) -> Sequence[int]:
    process = psutil.Process()
    # macOS has no such call
    return process.cpu_affinity() if hasattr(process, "cpu_affinity") else range(count)


def _own() -> float:
    process = psutil.Process()
    seconds = 0.0
    for one in [process, *process.children(recursive=True)]:
        try:
            times = one.cpu_times()
        except psutil.Error:  # it has ended
            continue
        seconds += times.user + times.system
        seconds += times.children_user + times.children_system
    return seconds
