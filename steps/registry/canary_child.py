"""Load a model as a user does, and run a few checks of the chat contract on it.

Started as a plain file, isolated, in a process of its own. It imports nothing of ``steps`` but the
package ``conformance`` and ``peak_rss.py``, which the canary copies beside it.

    python -I canary_child.py <model folder> <result.json> <concurrent requests>

Writes ``{"passed": bool, "checks": [{"name", "passed", "detail"}], "peak_rss_bytes": int}``; the
network is refused from the first line on.
"""

import json
import os
import socket
import sys
import traceback
from pathlib import Path
from typing import Any

os.environ["ORT_DISABLE_TELEMETRY"] = "1"
os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"

# of the conformance table: what every client relies on, in some twenty short requests
CONTRACT = (
    "completion shape",
    "temperature 0 repeats",
    "finish_reason",
    "usage adds up",
    "concurrent requests",
    "prompt column",
)
_connect = socket.socket.connect


class NetworkRefusedError(OSError):
    """The model tried to open a connection."""


def refuse(self: socket.socket, address: Any) -> None:
    """Stand in for ``connect``: local sockets between processes are allowed, addresses are not."""
    if self.family in (socket.AF_INET, socket.AF_INET6):
        raise NetworkRefusedError(
            f"the model wanted to reach {address} while it was loaded or called"
        )
    _connect(self, address)


def refuse_name(*words: Any, **_more: Any) -> Any:
    """Stand in for ``getaddrinfo``."""
    raise NetworkRefusedError(
        f"the model wanted to look up {words[:2]} while it was loaded or called"
    )


class Checks:
    """What was checked, in order; a failure does not end the checks that can still run."""

    def __init__(self) -> None:
        self.rows: list[dict[str, object]] = []

    def that(self, name: str, holds: bool, detail: object = "") -> bool:
        self.rows.append(
            {"name": name, "passed": bool(holds), "detail": "" if holds else str(detail)[:2000]}
        )
        return bool(holds)


def exercise(folder: str, concurrency: int, checks: Checks) -> None:
    """Load, replay the input example, hold the contract."""
    import mlflow
    from conformance import conformance  # type: ignore[import-not-found]

    model = mlflow.pyfunc.load_model(folder)
    checks.that("loads", True)
    example = model.input_example
    if checks.that(
        "has an input example", example is not None, "log the model with an input_example"
    ):
        checks.that("replays its input example", len(model.predict(example)) > 0, "no answer")
    schema = model.metadata.get_input_schema()
    names = set(schema.input_names()) if schema else set()
    fault = (
        f"the signature has {sorted(names)}; an alias moves across variants, so each must take"
        " messages"
    )
    if checks.that("takes messages", "messages" in names, fault):
        for row in conformance(model, only=CONTRACT, concurrency=concurrency):
            checks.that(row.name, row.passed or row.limit is not None, row.detail)


def main() -> None:
    folder, result, concurrency = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
    socket.socket.connect = refuse  # type: ignore[method-assign,assignment]
    socket.getaddrinfo = refuse_name
    sys.path.insert(0, str(Path(__file__).parent))
    from peak_rss import peak_rss  # type: ignore[import-not-found]

    checks = Checks()
    try:
        exercise(folder, concurrency, checks)
    except Exception as error:  # noqa: BLE001  (whatever the model raises is the result)
        checks.that(
            "runs to the end",
            False,
            f"{type(error).__name__}: {error}\n{traceback.format_exc()[-1500:]}",
        )
    passed = bool(checks.rows) and all(row["passed"] for row in checks.rows)
    result.write_text(
        json.dumps({"passed": passed, "checks": checks.rows, "peak_rss_bytes": peak_rss()})
    )


if __name__ == "__main__":
    main()
