"""Copy single files out of artifact stores, for ``bounded_read``; in a process of its own, since a
store's client can be ended in no other way.

Started as a plain file. Each line of stdin is a request, each line of stdout the answer. The kernel
ends this process where a file takes too long (SIGALRM) and refuses to write more of it than is
allowed (RLIMIT_FSIZE).
"""

import json
import os
import resource
import signal
import sys
from pathlib import Path
from typing import Any

START_SECONDS = 120  # until it listens: MLflow takes a second or two to import on an idle machine


def main() -> None:
    signal.alarm(START_SECONDS)
    # what a library prints is no answer
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    import mlflow

    for line in sys.stdin:
        request = json.loads(line)
        os.environ.clear()
        os.environ.update(request["environment"])
        mlflow.set_tracking_uri(request["tracking_uri"])
        _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (request["most_bytes"] + 1, hard))
        signal.alarm(request["seconds"])
        answer = copy(request["address"], Path(request["target"]), request["most_bytes"])
        signal.alarm(0)
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


def copy(address: str, target: Path, most_bytes: int) -> dict[str, Any]:
    """Copy one file and say how that went."""
    from mlflow.exceptions import MlflowException
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    place, _, name = address.rpartition("/")
    try:
        get_artifact_repository(place)._download_file(name, str(target))
    except Exception as error:  # noqa: BLE001  (any store's client may raise anything)
        if target.exists() and target.stat().st_size >= most_bytes + 1:
            return {"large": True}
        code = error.error_code if isinstance(error, MlflowException) else None
        return {"error": f"{type(error).__name__}: {error}", "code": code}
    return {"large": target.stat().st_size > most_bytes}


if __name__ == "__main__":
    main()
