"""Stand-ins for what a registry works with: evaluations, clocks, clients and webhooks."""

import base64
import json
import socket
import threading
import time
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from steps.registry.candidate_evaluation import EvaluationFailedError
from steps.registry.client import RegistryClient
from steps.registry.model_version import Version
from tests.registry import scene

SECRET = "whsec_" + base64.b64encode(b"a secret of twenty-four b").decode()


class Evaluator:
    """Stands in for the step ``evaluate``: reports what it is told, with the champion beside the
    candidate.
    """

    def __init__(self, decision: str = "promote", quality: float = 0.48) -> None:
        self.decision, self.metrics, self.asked = (
            decision,
            {**scene.FAST, "quality/score": quality},
            list[str](),
        )

    def __call__(self, version: Version, alias: str) -> None:
        self.asked.append(version.uri)
        registry = RegistryClient(5)
        number = (registry.aliases(version.name) or {}).get(alias)
        champion = registry.version(version.name, number) if number else None
        assert version.model_id is not None
        judged = [
            scene.candidate(
                version.model_id,
                version.tags.get("slm.variant", "onnx"),
                self.metrics,
                self.decision,
            )
        ]
        if (
            champion is not None
            and champion.model_id is not None
            and champion.model_id != version.model_id
        ):
            judged.append(
                scene.candidate(champion.model_id, "transformers", scene.GOOD, role="incumbent")
            )
        scene.report_by_a_run(judged, name=version.name)


def no_evaluation(version: Version, alias: str) -> None:  # noqa: ARG001
    """An evaluation that fails."""
    raise EvaluationFailedError("no evaluation in this test")


def never(version: Version, alias: str) -> None:  # noqa: ARG001
    """An evaluation that must not be asked for."""
    raise AssertionError(f"{version.uri} was evaluated")


def counted(client: Any) -> Any:
    """A client whose calls are counted in ``made``."""
    return Counter(client)


class Counter:
    """Counts the calls of a client's methods: each is one request to a server."""

    def __init__(self, client: Any) -> None:
        self.client, self.made = client, list[str]()

    def __getattr__(self, name: str) -> Any:
        found = getattr(self.client, name)

        def call(*words: Any, **options: Any) -> Any:
            self.made.append(name)
            return found(*words, **options)

        return call if callable(found) else found


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class DrippingEndpoint:
    """Answers byte by byte: no read of its answer waits long, and the answer never ends.

    Args:
        begin: what it sends at once.
    """

    def __init__(self, begin: bytes) -> None:
        self.begin, self.attempts = begin, 0
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.host = f"127.0.0.1:{self.socket.getsockname()[1]}"
        threading.Thread(target=self._serve, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://{self.host}/hook"

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self.socket.accept()
            except OSError:  # closed
                return
            self.attempts += 1
            threading.Thread(target=self._drip, args=(connection,), daemon=True).start()

    def _drip(self, connection: socket.socket) -> None:
        with connection, suppress(OSError):
            connection.recv(65536)
            connection.sendall(self.begin)
            while True:
                connection.sendall(b"a")
                time.sleep(0.05)


class WebhookEndpoint:
    """Answers with one status after the other, the last for ever; keeps what it got."""

    def __init__(self, statuses: tuple[int, ...], delay: float = 0.0) -> None:
        self.got: list[tuple[dict[str, str], bytes]] = []
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                receiver.got.append(
                    ({key.lower(): value for key, value in self.headers.items()}, body)
                )
                time.sleep(delay)
                self.send_response(statuses[min(len(receiver.got), len(statuses)) - 1])
                self.send_header("Location", f"http://127.0.0.1:{receiver.port}/elsewhere")
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    @property
    def port(self) -> int:
        return int(self.server.server_address[1])

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hook"

    def events(self) -> list[dict[str, Any]]:
        return [json.loads(body) for _, body in self.got]
