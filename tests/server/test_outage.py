"""The tracking server is killed in the middle of a promotion, and started again; or not."""

import threading
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

import mlflow
import pytest

from steps.registry.alias_store import AliasStore
from steps.registry.client import RegistryClient, ServerUnavailableError
from tests.registry import commands, scene
from tests.registry.commands import promote
from tests.server.servers import Postgres, Server

pytestmark = [pytest.mark.server, pytest.mark.slow, pytest.mark.timeout(1200)]
T = TypeVar("T")
AWAY = 2.0  # seconds before it is started again


class CutClient(RegistryClient):
    """Kills the server right before one of its calls."""

    def __init__(self, server: Server, before: str, *, restart: bool, retry_seconds: float) -> None:
        super().__init__(retry_seconds)
        self.server, self.before, self.restart = server, before, restart
        self.cut = False

    def attempt(self, what: str, call: Callable[[], T]) -> T:
        if not self.cut and what.startswith(self.before):
            self.cut = True
            self.server.kill()
            if self.restart:
                threading.Timer(AWAY, self.server.start).start()
        return super().attempt(what, call)


@pytest.fixture
def own_server(
    postgres: Postgres,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> Iterator[Server]:
    """A server that a test may kill."""
    database = (
        "outage_"
        + "".join(letter if letter.isalnum() else "_" for letter in request.node.name.lower())[:40]
    )
    server = Server(postgres.database(database), tmp_path_factory.mktemp("outage")).start()
    before = mlflow.get_tracking_uri()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.uri)
    mlflow.set_tracking_uri(server.uri)
    mlflow.set_registry_uri(server.uri)
    mlflow.set_experiment("test")
    yield server
    server.kill()
    mlflow.set_tracking_uri(before)
    mlflow.set_registry_uri(before)


def registered() -> None:
    with mlflow.start_run():
        slow, fast = scene.log_model("transformers"), scene.log_model("onnx")
        uri = scene.log_report(
            [
                scene.candidate(slow, "transformers", scene.GOOD),
                scene.candidate(fast, "onnx", scene.FAST),
            ]
        )
    commands.register(uri, scene.config())


def wait_for(server: Server) -> None:
    deadline = time.monotonic() + 120
    while server.process is None and time.monotonic() < deadline:
        time.sleep(0.5)


@pytest.mark.usefixtures("no_canary")
def test_killed_and_restarted_in_the_middle(own_server: Server) -> None:
    registered()
    name, target = scene.NAME, 1
    for before in (
        f"creating a version of '{name}.history'",
        f"setting '{name}'@champion",
        f"tagging '{name}.history'",
    ):
        registry = CutClient(own_server, before, restart=True, retry_seconds=120)
        done = promote(scene.config(f"target=models:/{name}/{target}"), registry=registry)
        assert registry.cut and done.entry is not None
        wait_for(own_server)
        assert (RegistryClient(60).aliases(name) or {})["champion"] == target
        target = 3 - target
    journal = scene.history(name)
    assert [entry.holds for entry in journal.entries] == [True] * 4 and journal.holes == ()
    assert journal.held("champion") == [2, 1, 2, 1]


@pytest.mark.usefixtures("no_canary")
def test_killed_for_good_is_a_clear_error_and_the_next_run_finishes(own_server: Server) -> None:
    registered()
    name = scene.NAME
    for before, finished in (
        (f"creating a version of '{name}.history'", 2),
        (f"setting '{name}'@champion", 1),
    ):
        registry = CutClient(own_server, before, restart=False, retry_seconds=3)
        started = time.monotonic()
        with pytest.raises(
            ServerUnavailableError,
            match=r"no answer from the tracking server for 3 s .* run the same command again",
        ):
            promote(scene.config(f"target=models:/{name}/1"), registry=registry)
        assert time.monotonic() - started < 60
        own_server.start()
        # the move had begun, if at all, in the journal only
        assert (RegistryClient(60).aliases(name) or {})["champion"] == 2
        begun = [entry.settled for entry in scene.history(name).entries]
        assert begun == (["true"] if finished == 2 else ["true", ""])
        AliasStore(RegistryClient(60), name).open()  # what the next run does first
        journal = scene.history(name)
        assert (
            (RegistryClient(60).aliases(name) or {})["champion"]
            == finished
            == journal.aliases["champion"]
        )
