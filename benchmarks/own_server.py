"""``python -m steps.serve`` as a process, for the lines that ask it."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.subjects import ROOT, Subjects

NAME = "smollm2-135m-instruct"
LISTENING = re.compile(r"listening on (http://\S+)")
START_SECONDS = 180.0


def registered(subjects: Subjects, variant: str) -> None:
    """Register a variant as the champion, with the digest of its bytes."""
    import mlflow
    from mlflow.exceptions import MlflowException

    from steps.core import digest, tags

    uri = subjects.uri(variant)
    client = mlflow.MlflowClient(subjects.tracking_uri, subjects.tracking_uri)
    try:
        client.get_model_version_by_alias(NAME, "champion")
    except MlflowException:
        folder = Path(mlflow.artifacts.download_artifacts(uri, tracking_uri=subjects.tracking_uri))
        about = {tags.DIGEST: digest.of_folder(folder), tags.VARIANT: variant}
        client.create_registered_model(NAME)
        made = client.create_model_version(NAME, uri, tags=about, model_id=uri.split("/")[-1])
        client.set_registered_model_alias(NAME, "champion", made.version)


@contextmanager
def own_server(subjects: Subjects, variant: str) -> Iterator[str]:
    """Serve a variant; yields the server's address once the model answers."""
    import requests

    registered(subjects, variant)
    kept = {key: value for key, value in os.environ.items() if key != "OMP_WAIT_POLICY"}
    log = subjects.home / "serve.log"
    with log.open("w") as output:
        words = [f"target=models:/{NAME}", "serve.port=0", f"store.path={subjects.home / 'served'}"]
        server = subprocess.Popen(
            [sys.executable, "-m", "steps.serve", *words],
            cwd=ROOT,
            env=kept | {"MLFLOW_TRACKING_URI": subjects.tracking_uri},
            stdout=output,
            stderr=output,
        )
    try:
        until = time.monotonic() + START_SECONDS
        while True:
            found = LISTENING.findall(log.read_text())
            if found and requests.get(f"{found[-1]}/readyz", timeout=5).ok:
                break
            if server.poll() is not None or time.monotonic() > until:
                raise RuntimeError(f"serve did not start: {log.read_text()[-2000:]}")
            time.sleep(0.5)
        yield found[-1]
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait(60)
