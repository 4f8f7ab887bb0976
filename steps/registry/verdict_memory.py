"""Whether a candidate's verdict stands, and when a model that failed is looked at again."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime

from steps.core import digest, tags
from steps.registry.model_version import Version
from steps.registry.survey import MARGIN_MS, Facts

CANDIDATE_TAG = "slm.candidate"  # what became of it, in words
# digest of the report it was judged on, so that it is judged once
JUDGED_TAG = "slm.candidate.evidence"
WHEN_TAG = "slm.candidate.judged_at"
# digests of what was known when it was judged: its evidence, its approvals, the version itself
SEEN_TAG = "slm.candidate.seen"
# seconds until a failing model is tried again, doubled each time
FIRST_WAIT, LONGEST_WAIT = 60.0, 3600.0


def judged_ms(version: Version) -> int | None:
    """When a version was decided on last, ms since 1970; None where its tags do not say."""
    if not {CANDIDATE_TAG, JUDGED_TAG, WHEN_TAG} <= version.tags.keys():
        return None
    try:
        return int(datetime.fromisoformat(version.tags[WHEN_TAG]).timestamp() * 1000)
    except (ValueError, OverflowError, OSError):
        return None


def seen(version: Version, facts: Facts, reports: Mapping[str, int], judged_at_ms: int) -> str:
    """Value of ``SEEN_TAG``: three digests, of what could change its evidence, of its approvals,
    and of what the version is.

    Args:
        version: with its tags as they are now.
        facts: of its model.
        reports: evaluations of its model, URI to end.
        judged_at_ms: when it was judged; evaluations that ended long before it do not count.
    """
    evidence = [
        version.tags.get(key)
        for key in (tags.DIGEST, tags.EVALUATION, tags.EVIDENCE_DIGEST, tags.MODEL_ID)
    ]
    late = sorted(uri for uri, ended in reports.items() if ended >= judged_at_ms - MARGIN_MS)
    approvals = [[version.number, dict(version.tags)] for version in facts.approvals]
    parts = ([*evidence, *late], approvals, [version.source, version.status, version.created_ms])
    return " ".join(digest.of_value(part).removeprefix("sha256:")[:32] for part in parts)


def stands(version: Version, facts: Facts) -> bool:
    """Whether nothing changed since a version was judged, by the survey alone."""
    at = judged_ms(version)
    return at is not None and version.tags.get(SEEN_TAG) == seen(version, facts, facts.reports, at)


def is_another(version: Version, facts: Facts) -> bool:
    """Whether approvals or the registration itself changed since a version was decided on."""
    at, before = judged_ms(version), version.tags.get(SEEN_TAG, "").split(" ")
    return (
        at is not None
        and len(before) == 3
        and before[1:] != seen(version, facts, facts.reports, at).split(" ")[1:]
    )


@dataclass
class _Failure:
    state: str
    words: str
    times: int
    at: float  # when it is tried again, on the clock of Memory


class Memory:
    """What a process remembers between two looks.

    Args:
        clock: seconds, monotonic.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._failures: dict[str, _Failure] = {}
        self._observed: dict[str, int] = {}

    def due(self, name: str, state: str) -> bool:
        """Whether to read a model: it did not fail, changed since, or has waited long enough."""
        failure = self._failures.get(name)
        return failure is None or failure.state != state or self._clock() >= failure.at

    def failed(self, name: str, state: str, words: str) -> bool:
        """Note a failure. Returns whether to report it: it is new, or in a new state."""
        before = self._failures.get(name)
        again = before is not None and before.state == state
        times = before.times + 1 if again and before else 1
        wait = min(LONGEST_WAIT, FIRST_WAIT * 2.0 ** min(times - 1, 16))
        self._failures[name] = _Failure(state, words, times, self._clock() + wait)
        return not (again and before and before.words == words)

    def passed(self, name: str) -> None:
        """Note that a model could be looked at."""
        self._failures.pop(name, None)

    def unseen(self, name: str, last: int) -> int | None:
        """Number of the last entry that this process has read, if any; from now on ``last``."""
        before = self._observed.get(name)
        self._observed[name] = last
        return before
