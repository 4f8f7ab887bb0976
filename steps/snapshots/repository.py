"""A repository of a model hub, as the config names it."""

import re
from dataclasses import dataclass

COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True)
class Repository:
    """One repository at one revision, as the config asks for it.

    Attributes:
        field: config node that it stands in, for messages: ``model`` or ``model.onnx``.
        repo: ``owner/name``.
        requested: branch, tag or commit; None is the default branch.
    """

    field: str
    repo: str
    requested: str | None

    @property
    def pinned(self) -> bool:
        """Whether the revision is a full commit hash, which never moves."""
        return bool(COMMIT.fullmatch(self.requested or ""))
