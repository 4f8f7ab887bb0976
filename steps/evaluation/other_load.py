"""What else kept the machine busy while candidates were timed: figures taken in such company say
little about a model.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import psutil

# shares of the CPU time of the CPUs that this process may use
MOST_OTHERS = 0.1  # of other processes; a desktop at rest takes a few percent
MOST_STOLEN = 0.05  # by other guests of the host (steal time)
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
    """Shares of the CPU time of a period, each from 0 to 1."""

    others: float
    stolen: float
    idle: float

    @property
    def busy(self) -> bool:
        """Whether timings of this period are of no use."""
        crowded = self.others > MOST_OTHERS and self.idle < ENOUGH_IDLE
        return crowded or self.stolen > MOST_STOLEN

    @property
    def words(self) -> str:
        """What was taken, where it was too much; empty elsewhere."""
        if not self.busy:
            return ""
        taken = [
            (self.others, MOST_OTHERS, "other processes"),
            (self.stolen, MOST_STOLEN, "other guests of the host"),
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
def watched() -> Iterator[Watch]:
    """Watch the machine until the block ends; the processes to be timed live as long."""
    watch, before = Watch(), now()
    yield watch
    watch.load = between(before, now())


def between(before: CpuTimes, after: CpuTimes) -> OtherLoad | None:
    """The load between two looks; None where no CPU time passed."""
    total = after.total - before.total
    if total <= 0:
        return None
    idle, stolen = after.idle - before.idle, after.stolen - before.stolen
    others = total - idle - stolen - (after.own - before.own)
    return OtherLoad(*(min(1.0, max(0.0, part / total)) for part in (others, stolen, idle)))


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
