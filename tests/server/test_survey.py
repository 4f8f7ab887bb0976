"""What a look of `watch` costs on a real server: 200 models on PostgreSQL, counted in HTTP
requests.
"""

from typing import Any

import pytest
import requests

from steps.core.errors import StepError
from steps.registry.client import RegistryClient
from steps.registry.table import show_history
from steps.registry.verdict_memory import Memory
from tests.registry import commands, registries, scene
from tests.server.servers import Server

pytestmark = [pytest.mark.server, pytest.mark.slow]
MODELS = 200


class NotHereError(StepError):
    """Nothing is evaluated in this test."""


def refuse(*_: object) -> None:
    raise NotHereError("nothing is evaluated here")


@pytest.mark.timeout(300)
@pytest.mark.usefixtures("remote")
def test_200_models_and_a_long_history_in_few_requests(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    registries.settled(server.store, models=MODELS)
    registries.settled(server.store, models=1, entries=101, first=MODELS)
    memory = Memory()
    # what other tests left is answered here
    commands.poll_once(scene.config(), RegistryClient(20), refuse, memory=memory)
    made: list[str] = []
    real = requests.Session.request

    def request(
        self: requests.Session, method: str, url: str, *words: Any, **options: Any
    ) -> requests.Response:
        if url.startswith(server.uri):
            made.append(f"{method} {url}")
        return real(self, method, url, *words, **options)

    monkeypatch.setattr(requests.Session, "request", request)
    assert commands.poll_once(scene.config(), RegistryClient(20), refuse, memory=memory) == []
    assert 3 <= len(made) < 20, made
    made.clear()
    found = show_history(scene.config(f"target=models:/model-{MODELS:03}"), as_json=True, limit=10)
    assert [entry["entry"] for entry in found["entries"]] == list(range(92, 102))
    assert len(made) == 5, made
