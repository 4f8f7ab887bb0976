"""Who acts, as a server says or as it is only claimed. A real server with users:
tests/server/test_approvals.py.
"""

import base64
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import mlflow
import pytest

from steps.registry.actors import Actor, who
from steps.registry.client import RegistryClient

VARIABLES = ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD", "MLFLOW_USER")
Answers = dict[str, tuple[int, str]]


@pytest.fixture(autouse=True)
def nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("getpass.getuser", lambda: "root")


@pytest.fixture
def answers(tracking: str) -> Iterator[Answers]:
    """The registry is a small HTTP server that answers these paths with these statuses and bodies,
    and others with a page.
    """
    known: Answers = {}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, body = known.get(self.path, (200, "<html>MLflow</html>"))
            if status == 200 and "{user}" in body:
                credentials = base64.b64decode(
                    self.headers.get("Authorization", "Basic ").removeprefix("Basic ")
                ).decode()
                body = body.replace("{user}", credentials.partition(":")[0])
            self.send_response(status)
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        mlflow.set_registry_uri(f"http://127.0.0.1:{server.server_port}")
        yield known
        mlflow.set_registry_uri(tracking)
        server.shutdown()


@pytest.mark.usefixtures("tracking")
def test_without_a_server_the_name_is_claimed(monkeypatch: pytest.MonkeyPatch) -> None:
    registry = RegistryClient(5)
    assert (
        who(registry) == Actor("root", authenticated=False)
        and who(registry).shown == "root (claimed)"
    )
    monkeypatch.setenv("MLFLOW_USER", "alice")
    assert who(registry) == Actor("alice", authenticated=False)

    def unknown() -> str:
        raise KeyError("getpwuid(): uid not found: 4711")

    monkeypatch.delenv("MLFLOW_USER")
    monkeypatch.setattr("getpass.getuser", unknown)
    assert who(registry).name.startswith("uid ")


@pytest.mark.parametrize("status", [200, 404, 403])
def test_server_that_cannot_say_leaves_the_name_claimed(
    answers: Answers, monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    for path in ("/api/2.0/mlflow/users/current", "/api/2.0/mlflow/users/get?username=alice"):
        answers[path] = (status, '{"user": "admin"}')
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "alice")
    monkeypatch.setenv("MLFLOW_USER", "bob")
    assert who(RegistryClient(5)) == Actor("alice", authenticated=False)


def test_server_says_the_user_of_the_request(
    answers: Answers, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers["/api/2.0/mlflow/users/current"] = (200, '{"user": {"username": "{user}"}}')
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "alice")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "secret")
    monkeypatch.setenv("MLFLOW_USER", "bob")
    assert who(RegistryClient(5)) == Actor("alice", authenticated=True)
    mlflow.set_registry_uri(
        mlflow.get_registry_uri().replace("://", "://carol%40example.org:secret@")
    )
    assert who(RegistryClient(5)) == Actor("carol@example.org", authenticated=True)


def test_older_server_is_asked_for_the_one_user(
    answers: Answers, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers["/api/2.0/mlflow/users/current"] = (404, "")
    answers["/api/2.0/mlflow/users/get?username=alice"] = (200, '{"user": {"username": "alice"}}')
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "alice")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "secret")
    assert who(RegistryClient(5)) == Actor("alice", authenticated=True)
    # with a token an administrator would be shown any user
    monkeypatch.delenv("MLFLOW_TRACKING_PASSWORD")
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "of somebody else")
    assert who(RegistryClient(5)) == Actor("alice", authenticated=False)
