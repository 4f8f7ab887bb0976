"""``mlflow models serve`` as a process, for the lines that ask over HTTP."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.subjects import Subjects


@contextmanager
def scoring_server(subjects: Subjects, variant: str) -> Iterator[str]:
    """Serve a variant with one worker; yields its address once it answers."""
    import requests

    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    scripts = Path(sys.executable).parent
    environment = {key: value for key, value in os.environ.items() if key != "OMP_WAIT_POLICY"} | {
        "MLFLOW_TRACKING_URI": subjects.tracking_uri,
        "PATH": f"{scripts}{os.pathsep}{os.environ['PATH']}",
    }
    command = [str(scripts / "mlflow"), "models", "serve", "-m", subjects.uri(variant)]
    command += ["-p", str(port), "-h", "127.0.0.1", "--env-manager", "local"]
    with (subjects.home / f"{variant}.log").open("w") as log:
        server = subprocess.Popen(
            command,
            cwd=subjects.home,
            env=environment,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    url = f"http://127.0.0.1:{port}"
    try:
        for _ in range(360):
            try:
                requests.get(f"{url}/ping", timeout=2).raise_for_status()
                break
            except requests.RequestException:
                if server.poll() is not None:
                    raise RuntimeError(
                        (subjects.home / f"{variant}.log").read_text()[-2000:]
                    ) from None
                time.sleep(0.5)
        yield url
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait(30)
