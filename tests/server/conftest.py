"""Fixtures: the servers that tests share, and this process as their client."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.registry.fixtures import no_canary
from tests.server.servers import ADMIN, DATABASE, PASSWORD, PROGRAMS, WEBHOOKS, As, Postgres, Server

__all__ = ["as_user", "guarded", "no_canary", "postgres", "remote", "server"]


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    if not PROGRAMS:
        pytest.fail("PostgreSQL is not installed: apt-get install postgresql (.ci/run does it)")
    cluster = Postgres()
    yield cluster
    cluster.stop()


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
