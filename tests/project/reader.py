"""Somebody who types a document's commands in a clone of the project, as they stand."""

import os
import signal
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path

import requests

from tests.conftest import BIN

ACTIVATION = "source .venv/bin/activate"
START_SECONDS = 120.0


@dataclass
class Reader:
    """A shell in ``folder``, whose environment is active once the document has said so."""

    folder: Path
    active: bool = False
    printed: dict[str, str] = field(default_factory=dict)  # by command
    servers: "list[subprocess.Popen[bytes]]" = field(default_factory=list)

    @property
    def environment(self) -> dict[str, str]:
        """This process's environment without MLflow's settings and without the project's
        programs.
        """
        kept = {key: value for key, value in os.environ.items() if not key.startswith("MLFLOW_")}
        kept.pop("VIRTUAL_ENV", None)
        elsewhere = [path for path in kept["PATH"].split(os.pathsep) if Path(path) != BIN]
        return kept | {"PATH": os.pathsep.join(elsewhere)}

    def type(self, command: str) -> None:
        """Run a command to its end.

        Raises:
            AssertionError: it failed.
        """
        if command == ACTIVATION:
            self.active = True
        done = subprocess.run(
            self._words(command),
            cwd=self.folder,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=1800,
            check=False,
        )
        self.printed[command] = done.stdout + done.stderr
        assert done.returncode == 0, f"{command}\n{self.printed[command][-6000:]}"

    def start(self, command: str, url: str) -> None:
        """Start a server, and wait until ``url`` answers.

        Raises:
            AssertionError: something else is there already, the server ended, or it took too long.
        """
        assert not _answers(url), f"{url} is taken already, so {command!r} cannot be tried"
        log = self.folder / f"server-{len(self.servers)}.log"
        with log.open("wb") as output:
            server = subprocess.Popen(
                self._words(command),
                cwd=self.folder,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        self.servers.append(server)
        until = time.monotonic() + START_SECONDS
        while not _answers(url):
            said = f"{command}: {log.read_text()[-3000:]}"
            assert server.poll() is None and time.monotonic() < until, said
            time.sleep(0.2)

    def python(self, code: str) -> str:
        """Run a document's Python in the project's environment; what it printed.

        Raises:
            AssertionError: it failed.
        """
        done = subprocess.run(
            [self.folder / ".venv/bin/python", "-c", code],
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == 0, f"{code}\n{done.stderr[-3000:]}"
        return done.stdout.strip()

    def stop(self) -> None:
        """End the servers that were started."""
        while self.servers:
            server = self.servers.pop()
            # what it started belongs to its session
            os.killpg(server.pid, signal.SIGTERM)
            try:
                server.wait(30)
            except subprocess.TimeoutExpired:
                os.killpg(server.pid, signal.SIGKILL)
                server.wait()

    def _words(self, command: str) -> list[str]:
        return ["bash", "-c", f"{ACTIVATION} && {command}" if self.active else command]


def _answers(url: str) -> bool:
    try:
        return requests.get(url, timeout=5).ok
    except requests.RequestException:
        return False
