"""Other runtimes on the same weights, each in a process of the peers' environment."""

import json
import os
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

INSTALL = "make peers"


class NotInstalledError(RuntimeError):
    """The peers' environment is not there; the rows against them say so."""


@dataclass(frozen=True)
class Times:
    """Of one request.

    Args:
        first: seconds to the first text.
        between: seconds between tokens after it.
        tokens: that were generated, as the runtime counts them.
        prompt_tokens: of the prompt with its template.
    """

    first: float
    between: float
    tokens: int
    prompt_tokens: int

    @property
    def rate(self) -> float:
        """Tokens a second while decoding."""
        return 1 / self.between


class Peer:
    """A loaded peer.

    Args:
        command: what its process runs.
        log: takes its standard error.

    Raises:
        RuntimeError: the process ended.
    """

    def __init__(self, command: Sequence[str], log: Path) -> None:
        self._command, self._log = " ".join(command), log
        # set for this process's own torch; a peer waits as it does by itself
        environment = {key: value for key, value in os.environ.items() if key != "OMP_WAIT_POLICY"}
        with log.open("w") as errors:
            self._process = subprocess.Popen(
                command,
                env=environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
            )
        opened = self._read()
        self.url = str(opened["url"])  # of its server; empty where it has none
        self.about: dict[str, str] = opened["about"]  # versions

    def times(self, content: str, limit: int) -> Times:
        """Answer one message with at most `limit` tokens, greedily.

        Raises:
            RuntimeError: the process ended.
        """
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"content": content, "limit": limit}) + "\n")
        self._process.stdin.flush()
        return Times(**self._read())

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _read(self) -> dict[str, Any]:
        """The next line that is an answer: native code may write others."""
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith("{"):
                return dict(json.loads(line))
        self._process.wait()
        said = self._log.read_text("utf-8", errors="replace")[-2000:]
        raise RuntimeError(f"{self._command} ended: {said}")
