"""A chat model without weights: it answers at once, and breaks in the ways that ``model_config``
asks for.
"""

import os
import socket
import time
from typing import Any

import mlflow
import pandas as pd


class Parrot(mlflow.pyfunc.PythonModel):  # type: ignore[misc,name-defined]
    """Says back the last message; ``fault`` in the model config makes it misbehave."""

    def load_context(self, context: Any) -> None:
        # while it is logged, as MLflow then tries it in the process of the test
        behaves = "PARROT_BEHAVES" in os.environ
        self.fault = None if behaves else (context.model_config or {}).get("fault")
        self.name = (context.model_config or {}).get("name", "parrot")
        self.calls = 0
        if self.fault == "load":
            raise RuntimeError("these weights are broken")
        if self.fault == "network":
            socket.create_connection(("192.0.2.1", 80), timeout=1)
        if self.fault == "project":
            import steps  # noqa: F401

    def predict(self, context: Any, model_input: pd.DataFrame, params: Any = None) -> list[Any]:  # noqa: ARG002
        self.calls += 1
        if self.fault == "hang":
            time.sleep(3600)
        if self.fault == "memory":
            self.kept = bytearray(os.urandom(1) * 800_000_000)
        if self.fault == "exit":
            import atexit

            atexit.register(lambda: os._exit(134))
        if self.fault == "shape":
            return ["no completion"] * len(model_input)
        return [self.answer(row) for row in model_input.to_dict("records")]

    def answer(self, row: Any) -> Any:
        prompt = row.get("prompt")
        if isinstance(prompt, str) and prompt:
            return f"{self.name}: {prompt}"
        asked = row["messages"][-1]["content"]
        words = f"{self.name}: {asked}".split()
        if self.fault == "random":
            words.append(str(self.calls))
        limit = row.get("max_tokens")
        limit = len(words) if limit is None or limit != limit else int(limit)
        used, whole = min(len(words), limit), len(asked.split())
        return {
            "id": "chatcmpl-1",
            "object": "chat.completion",
            "created": 0,
            "model": self.name,
            "choices": [
                {
                    "index": 0,
                    "message": {"role": "assistant", "content": " ".join(words[:used])},
                    "finish_reason": "stop" if used == len(words) else "length",
                }
            ],
            "usage": {
                "prompt_tokens": whole,
                "completion_tokens": used,
                "total_tokens": whole + used,
            },
        }


mlflow.models.set_model(Parrot())
