"""Where artifacts of another user's run may lie, so that they are read at all.

Every user may make an experiment, and chooses the address of its artifacts: of another server,
which would be sent this user's credentials, or of a store whose client this machine does not have.
So only addresses beside those of the server's own experiments are followed.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import PurePosixPath
from urllib.parse import unquote, urlsplit

DEFAULT_EXPERIMENT = "0"
PROXIED = "mlflow-artifacts"  # scheme of what the tracking server itself hands out
LOCAL = "file"


@dataclass(frozen=True)
class Places:
    """Folders, as scheme, host and path, below which artifacts are read."""

    roots: frozenset[tuple[str, str, str]] = frozenset()

    @staticmethod
    def around(locations: Iterable[str], tracking_uri: str) -> Places:
        """The folders in which experiments of the server and of the policy lie.

        Args:
            locations: artifact locations of those experiments.
            tracking_uri: of the server; over http it hands out artifacts itself.
        """
        served = urlsplit(tracking_uri).scheme in ("http", "https")
        roots = {(PROXIED, "", "/")} if served else set()
        for scheme, host, path in filter(None, map(_parts, locations)):
            parent = str(PurePosixPath(path).parent)
            if scheme != PROXIED:
                roots.add((scheme, host, path if scheme == LOCAL and parent == "/" else parent))
        return Places(frozenset(roots))

    def holds(self, uri: str) -> bool:
        """Whether an address lies below one of these folders."""
        parts = _parts(uri)
        if parts is None:
            return False
        scheme, host, path = parts
        return any(
            (scheme, host) == root[:2] and PurePosixPath(path).is_relative_to(root[2])
            for root in self.roots
        )


NOWHERE = Places()


def _parts(uri: str) -> tuple[str, str, str] | None:
    """Scheme, host and absolute path of an address; None where it holds more, or leads upwards."""
    try:
        split = urlsplit(uri)
    except ValueError:
        return None
    path = PurePosixPath("/", unquote(split.path))
    if split.query or split.fragment or ".." in path.parts or "\\" in uri or not uri.isprintable():
        return None
    return split.scheme.lower() or LOCAL, split.netloc, str(path)
