"""A real tracking server on PostgreSQL with served artifacts, started and stopped by the tests, on
loopback.
"""

import base64
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import requests

from tests.conftest import BIN, clean_environment

PROGRAMS = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
# of the server that asks for a password
ADMIN, PASSWORD, DATABASE = "admin", "adm1n-passw0rd-secret", "auth"
START_LIMIT = 90.0  # seconds a server may take to answer; the first start migrates the database


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Postgres:
    """A private cluster in a temporary folder, run by the user ``postgres`` where the tests run as
    root.
    """

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="slm-postgres-"))
        self.port = free_port()
        self.programs = PROGRAMS[-1].parent
        if os.getuid() == 0:
            owner = pwd.getpwnam("postgres")
            os.chown(self.folder, owner.pw_uid, owner.pw_gid)
        self._run(
            "initdb",
            "-D",
            str(self.folder / "data"),
            "-U",
            "mlflow",
            "-A",
            "trust",
            "-E",
            "UTF8",
            "--no-sync",
        )
        options = (
            f"-p {self.port} -k {self.folder} -c listen_addresses=127.0.0.1 -c fsync=off -c"
            " max_connections=100"
        )
        self._run(
            "pg_ctl",
            "-D",
            str(self.folder / "data"),
            "-o",
            options,
            "-l",
            str(self.folder / "log"),
            "-w",
            "start",
        )

    def _run(self, program: str, *words: str) -> None:
        command = [str(self.programs / program), *words]
        if os.getuid() == 0:
            command = ["runuser", "-u", "postgres", "--", *command]
        done = subprocess.run(command, cwd="/", capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{' '.join(command)}: {done.stdout}{done.stderr}"

    def database(self, name: str) -> str:
        """Make an empty database; returns its SQLAlchemy URI."""
        self._run("createdb", "-h", "127.0.0.1", "-p", str(self.port), "-U", "mlflow", name)
        return f"postgresql+psycopg2://mlflow@127.0.0.1:{self.port}/{name}"

    def stop(self) -> None:
        self._run("pg_ctl", "-D", str(self.folder / "data"), "-m", "immediate", "-w", "stop")
        shutil.rmtree(self.folder, ignore_errors=True)


@dataclass
class Server:
    """One ``mlflow server``."""

    store: str  # SQLAlchemy URI
    folder: Path  # artifacts and logs
    options: tuple[str, ...] = ()
    environment: dict[str, str] = field(default_factory=dict)
    port: int = field(default_factory=free_port)
    process: "subprocess.Popen[bytes] | None" = None

    @property
    def uri(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> "Server":
        self.folder.mkdir(parents=True, exist_ok=True)
        command = [
            str(BIN / "mlflow"),
            "server",
            "--host",
            "127.0.0.1",
            "--port",
            str(self.port),
            "--workers",
            "2",
        ]
        command += [
            "--backend-store-uri",
            self.store,
            "--serve-artifacts",
            "--artifacts-destination",
            str(self.folder / "artifacts"),
        ]
        with (self.folder / "server.log").open("ab") as log:
            self.process = subprocess.Popen(
                [*command, *self.options],
                cwd=self.folder,
                env=clean_environment(**self.environment),
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        deadline = time.monotonic() + START_LIMIT
        while time.monotonic() < deadline:
            assert self.process.poll() is None, (self.folder / "server.log").read_text()[-3000:]
            try:
                if requests.get(f"{self.uri}/health", timeout=2).ok:
                    return self
            except (requests.ConnectionError, requests.Timeout):
                time.sleep(0.2)
        self.kill()
        raise AssertionError(
            f"no answer after {START_LIMIT} s: {(self.folder / 'server.log').read_text()[-3000:]}"
        )

    def kill(self) -> None:
        """End it and its workers at once, as a power cut would."""
        if self.process is not None:
            # the group that start_new_session made for it alone
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            self.process = None


# a webhook on loopback is refused unless the server is told that it is among friends; its secret is
# encrypted with one key for all workers
WEBHOOKS = {
    "MLFLOW_WEBHOOK_ALLOW_PRIVATE_IPS": "true",
    "MLFLOW_WEBHOOK_ALLOWED_SCHEMES": "http,https",
    "MLFLOW_WEBHOOK_SECRET_ENCRYPTION_KEY": base64.urlsafe_b64encode(bytes(range(32))).decode(),
    "MLFLOW_WEBHOOK_CACHE_TTL": "1",
}


class As:
    """Acts as one user or another from here on."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.monkeypatch = monkeypatch

    def __call__(self, user: str, password: str) -> None:
        self.monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", user)
        self.monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", password)


def make_user(guarded: Server, name: str, password: str) -> None:
    """Create a user; as the administrator."""
    from mlflow.server import get_app_client

    get_app_client("basic-auth", guarded.uri).create_user(name, password)
