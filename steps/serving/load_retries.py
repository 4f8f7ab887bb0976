"""When a version that could not be loaded is tried again: later each time."""

import time

from steps.registry.model_version import Version
from steps.serving.served_version import ServedVersion

FIRST, LONGEST = 15.0, 600.0  # seconds until the next try


class LoadRetries:
    """The failed loads of a server, by version."""

    def __init__(self) -> None:
        # when it is tried next, the pause after that, and why it failed
        self._tried: dict[tuple[str, int], tuple[float, float, str]] = {}

    def why_not(self, version: ServedVersion | Version) -> str:
        """Why a version is not to be loaded now; empty where it is."""
        again, _, reason = self._tried.get(_key(version), (0.0, 0.0, ""))
        return reason if time.monotonic() < again else ""

    def failed(self, version: ServedVersion, reason: str) -> float:
        """Record a failure. Returns the seconds until the next try."""
        _, pause, _ = self._tried.get(_key(version), (0.0, FIRST, ""))
        again = time.monotonic() + pause
        self._tried[_key(version)] = (again, min(2 * pause, LONGEST), reason)
        return pause

    def loaded(self, version: ServedVersion) -> None:
        """Forget the failures of a version that was loaded."""
        self._tried.pop(_key(version), None)


def _key(version: ServedVersion | Version) -> tuple[str, int]:
    return version.name, version.number
