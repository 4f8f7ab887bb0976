"""A fresh process, in another folder and without the project on its path, that loads logged models
and answers with them.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

SOURCE = """
import gc, json, sys
answers, sys.stdout = sys.stdout, sys.stderr
import mlflow
for line in sys.stdin:
    order = json.loads(line)
    try:
        model = mlflow.pyfunc.load_model(order["uri"])
        reply = {"answers": [model.predict(row)[0] for row in order["rows"]]}
        model.unwrap_python_model().close()
        del model
        gc.collect()
    except Exception as error:
        reply = {"error": f"{type(error).__name__}: {error}"}
    reply["imported"] = [name for name in ("steps", "torch", "transformers") if name in sys.modules]
    print(json.dumps(reply), file=answers, flush=True)
"""


class FreshProcess:
    """Reads models that others logged.

    Args:
        folder: to run in.
        tracking_uri: where they are.
    """

    def __init__(self, folder: Path, tracking_uri: str) -> None:
        script = folder / "script.py"
        script.write_text(SOURCE, "utf-8")
        kept = {
            name: value
            for name, value in os.environ.items()
            if name != "PYTHONPATH" and not name.startswith("MLFLOW_")
        }
        environment = {
            **kept,
            "MLFLOW_TRACKING_URI": tracking_uri,
            "HF_HUB_OFFLINE": "1",
            "OMP_WAIT_POLICY": "PASSIVE",
        }
        words = [sys.executable, str(script)]
        self._process = subprocess.Popen(
            words,
            cwd=folder,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def ask(self, uri: str, rows: list[dict[str, Any]]) -> dict[str, Any]:
        """Load a model, have it answer rows, and forget it.

        Returns:
            ``answers``, or ``error``; and ``imported``, of some modules those that are in the
            process now.
        """
        assert self._process.stdin and self._process.stdout
        self._process.stdin.write(json.dumps({"uri": uri, "rows": rows}) + "\n")
        self._process.stdin.flush()
        return dict(json.loads(self._process.stdout.readline() or '{"error": "the process ended"}'))

    def close(self) -> None:
        """End it."""
        self._process.communicate(timeout=60)
