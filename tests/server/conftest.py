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
from collections.abc import Iterator
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


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    if not PROGRAMS:
        pytest.fail("PostgreSQL is not installed: apt-get install postgresql (.ci/run does it)")
    cluster = Postgres()
    yield cluster
    cluster.stop()


# a webhook on loopback is refused unless the server is told that it is among friends; its secret is
# encrypted with one key for all workers
WEBHOOKS = {
    "MLFLOW_WEBHOOK_ALLOW_PRIVATE_IPS": "true",
    "MLFLOW_WEBHOOK_ALLOWED_SCHEMES": "http,https",
    "MLFLOW_WEBHOOK_SECRET_ENCRYPTION_KEY": base64.urlsafe_b64encode(bytes(range(32))).decode(),
    "MLFLOW_WEBHOOK_CACHE_TTL": "1",
}


@pytest.fixture(scope="session")
def server(postgres: Postgres, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The server that tests share."""
    started = Server(
        postgres.database("mlflow"), tmp_path_factory.mktemp("server"), environment=WEBHOOKS
    ).start()
    yield started
    started.kill()


@pytest.fixture
def remote(server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[str]:
    """Point this process at the shared server."""
    import mlflow

    before = mlflow.get_tracking_uri()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.uri)
    monkeypatch.chdir(tmp_path)
    mlflow.set_tracking_uri(server.uri)
    mlflow.set_registry_uri(server.uri)
    mlflow.set_experiment("test")
    yield server.uri
    while mlflow.active_run():
        mlflow.end_run()
    mlflow.set_tracking_uri(before)
    mlflow.set_registry_uri(before)


@pytest.fixture(scope="session")
def guarded(postgres: Postgres, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that asks for a password; everybody may read."""
    folder = tmp_path_factory.mktemp("auth")
    settings = folder / "auth.ini"
    settings.write_text(
        "[mlflow]\ndefault_permission = READ\nauth_cache_ttl_seconds = 60\n"
        f"database_uri = sqlite:///{folder}/auth.db\nadmin_username = {ADMIN}\n"
        "authorization_function = mlflow.server.auth:authenticate_request_basic_auth\n"
    )
    environment = {
        "MLFLOW_AUTH_CONFIG_PATH": str(settings),
        "MLFLOW_AUTH_ADMIN_PASSWORD": PASSWORD,
        "MLFLOW_FLASK_SERVER_SECRET_KEY": "sign cookies with this",
    }
    server = Server(
        postgres.database(DATABASE), folder, ("--app-name", "basic-auth"), environment
    ).start()
    yield server
    server.kill()


class As:
    """Acts as one user or another from here on."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.monkeypatch = monkeypatch

    def __call__(self, user: str, password: str) -> None:
        self.monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", user)
        self.monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", password)


@pytest.fixture
def as_user(guarded: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[As]:
    """Point this process at the guarded server; call the fixture's value to act as a user."""
    import mlflow

    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(guarded.uri)
    mlflow.set_registry_uri(guarded.uri)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", guarded.uri)
    monkeypatch.chdir(tmp_path)
    yield As(monkeypatch)
    mlflow.set_tracking_uri(before)
    mlflow.set_registry_uri(before)


def make_user(guarded: Server, name: str, password: str) -> None:
    """Create a user; as the administrator."""
    from mlflow.server import get_app_client

    get_app_client("basic-auth", guarded.uri).create_user(name, password)
