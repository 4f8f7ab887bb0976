"""A real server on loopback, and a registry with versions that it can serve."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import requests

from tests.conftest import ROOT, clean_environment

NAME = "slm"  # of the registered model
ONNX, TRANSFORMERS, SECOND, BROKEN = 1, 2, 3, 4  # its versions
START_SECONDS = 120.0
LISTENING = re.compile(r"listening on (http://\S+)")


@dataclass
class Serving:
    """A running server."""

    url: str
    process: "subprocess.Popen[bytes]"
    log: Path

    def state(self) -> dict[str, Any]:
        """What /readyz says."""
        answer: dict[str, Any] = requests.get(f"{self.url}/readyz", timeout=10).json()
        return answer

    def served(self, alias: str = "champion") -> int | None:
        """Version that is ready under an alias."""
        for one in self.state()["models"]:
            if one["alias"] == alias and one["ready"]:
                return int(one["version"])
        return None

    def wait_for(self, version: int, alias: str = "champion", seconds: float = 120.0) -> None:
        """Wait until a version is served under an alias."""
        until = time.monotonic() + seconds
        while self.served(alias) != version:
            if self.process.poll() is not None or time.monotonic() > until:
                raise AssertionError(f"version {version} is not served: {self.said()[-3000:]}")
            time.sleep(0.2)

    def said(self) -> str:
        """Its log."""
        return self.log.read_text("utf-8", "replace")

    def chat(self, content: str, **settings: Any) -> requests.Response:
        """Ask one question over HTTP."""
        body = {"messages": [{"role": "user", "content": content}], "max_tokens": 8} | settings
        return requests.post(f"{self.url}/v1/chat/completions", json=body, timeout=120)

    def metric(self, name: str, **labels: str) -> float:
        """The sum of a metric's samples with these labels."""
        from prometheus_client.parser import text_string_to_metric_families

        text = requests.get(f"{self.url}/metrics", timeout=10).text
        return sum(
            sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        )

    def workers(self) -> list[int]:
        """Process ids of the workers' processes."""
        import psutil

        return [
            child.pid
            for child in psutil.Process(self.process.pid).children(recursive=True)
            if any(word.endswith("serving/worker.py") for word in child.cmdline()[:4])
        ]


def move(registry: str, number: int, alias: str = "champion") -> None:
    """Move an alias of the served model to a version."""
    import mlflow

    mlflow.MlflowClient(registry, registry).set_registered_model_alias(NAME, alias, str(number))


@contextmanager
def serving(
    folder: Path, tracking_uri: str, *words: str, wait: int | None = ONNX, **environment: str
) -> Iterator[Serving]:
    """Serve from a registry until the block ends.

    Args:
        folder: for the log and the store of this server.
        tracking_uri: of the registry.
        words: overrides.
        wait: version of the champion to wait for; None does not wait.
        environment: more of it.
    """
    log = folder / f"serve-{len(list(folder.glob('serve-*.log')))}.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "steps.serve",
                f"target=models:/{NAME}",
                "serve.port=0",
                "serve.poll_seconds=0.5",
                f"store.path={folder / 'store'}",
                *words,
            ],
            cwd=ROOT,
            env=clean_environment(MLFLOW_TRACKING_URI=tracking_uri, **environment),
            stdout=output,
            stderr=output,
        )
    server = Serving("", process, log)
    try:
        until = time.monotonic() + START_SECONDS
        while not (found := LISTENING.findall(server.said())):
            if process.poll() is not None or time.monotonic() > until:
                raise AssertionError(f"the server did not start: {server.said()}")
            time.sleep(0.1)
        server.url = found[-1]
        if wait is not None:
            server.wait_for(wait)
        yield server
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
            raise
