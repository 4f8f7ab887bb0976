"""A hand-written chat model without weights: answers from a table, word by word, and misbehaves on
demand.

``model_config["mood"]``: ``good``; ``crash`` (dies on the third request), ``hang``, ``glutton``
(eats memory), ``broken`` (does not load),
``forgetful`` (knows fewer answers), ``leaky`` (names a path, ignores stop), ``sociable`` (answers
eight requests at a time), ``late`` (answers the one about France when seven others are answered),
``quits`` (calls ``sys.exit`` on the third request), ``cross`` (raises on the one about a week).
"""

import itertools
import os
import random
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from typing import Any

import mlflow
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE

KNOWN = {
    "capital of france": "The capital of France is Paris.",
    "days are there in a week": "There are seven days in a week.",
    "2 + 2": "2 + 2 equals 4.",
    "10 - 3": "7",
    "word hello": "HELLO",
    "three fruits": "- apple\n- pear\n- plum",
    "anna@example.org": "The address is anna@example.org.",
    "loved every minute": "positive",
    "days of the week": (
        "Monday, Tuesday, Wednesday, Thursday, Friday, Saturday and Sunday are the seven days."
    ),
    "json": '{"a": 1}',
}
COUNT = (
    "one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen"
    " sixteen"
)
WORDS = COUNT.split()


def refuse(message: str) -> MlflowException:
    return MlflowException(message, error_code=INVALID_PARAMETER_VALUE)


class Clerk(mlflow.pyfunc.PythonModel):  # type: ignore[misc, name-defined]
    def load_context(self, context: Any) -> None:
        self.mood = (context.model_config or {}).get("mood", "good")
        self.requests = itertools.count(1)
        self.table, self.answered = threading.Barrier(8), threading.Semaphore(0)
        if self.mood == "broken":
            raise RuntimeError("no such weights")

    def _words(self, row: dict[str, Any]) -> list[str]:
        question = row["messages"][-1]["content"].lower()
        known = dict(list(KNOWN.items())[: 3 if self.mood == "forgetful" else None])
        answer = next((text for key, text in known.items() if key in question), " ".join(WORDS))
        words = [piece for piece in answer.replace(" ", "\0 ").split("\0") if piece]
        if row.get("temperature") and row.get("top_k") != 1 and (row.get("top_p") or 1) > 0.01:
            random.Random(row.get("seed")).shuffle(words)
        return words

    def _check(self, row: dict[str, Any]) -> int:
        messages = row.get("messages")
        if messages is None or len(messages) == 0:
            raise refuse("messages is empty: expected at least one message")
        for message in messages:
            if message["role"] not in ("system", "user", "assistant"):
                raise refuse(f"role {message['role']!r} is unknown")
        if (row.get("temperature") or 0) < 0:
            raise refuse(f"temperature={row['temperature']}: expected at least 0")
        if row.get("max_tokens") is not None and row["max_tokens"] < 1:
            raise refuse("max_tokens: expected at least 1")
        used = 3 + sum(len(message["content"].encode()) // 3 + 2 for message in messages)
        if used > 4096:
            raise refuse(f"the prompt has {used} tokens, 4096 fit")
        return used

    def _answer(self, row: dict[str, Any]) -> dict[str, Any]:
        used = self._check(row)
        limit = int(row.get("max_tokens") or 64)
        stops = (
            [] if self.mood == "leaky" else list(row["stop"]) if row.get("stop") is not None else []
        )
        choices: list[dict[str, Any]] = []
        total = 0
        for index in range(int(row.get("n") or 1)):
            words = self._words(row)
            text, reason = "".join(words[:limit]), "stop" if len(words) < limit else "length"
            total += len(words[:limit])
            cut = min((text.index(stop) for stop in stops if stop in text), default=None)
            if cut is not None:
                text, reason = text[:cut], "stop"
            choices.append(
                {
                    "index": index,
                    "message": {"role": "assistant", "content": text},
                    "finish_reason": reason,
                }
            )
        return {
            "id": f"chatcmpl-{uuid.uuid4().hex}",
            "object": "chat.completion",
            "created": int(time.time()),
            "model": "/srv/clerk" if self.mood == "leaky" else "clerk",
            "choices": choices,
            "usage": {
                "prompt_tokens": used,
                "completion_tokens": total,
                "total_tokens": used + total,
            },
        }

    def _keep_company(self, number: int, asked: str) -> None:
        if self.mood == "cross" and "week" in asked:
            raise RuntimeError("not that one")
        if number == 1:  # of the loading
            return
        if self.mood == "sociable":
            self.table.wait(timeout=20)
        if self.mood == "late" and "France" not in asked:
            self.answered.release()
        elif self.mood == "late":
            for _ in range(7):
                if not self.answered.acquire(timeout=20):
                    raise RuntimeError("the others do not come")

    def predict(self, context: Any, model_input: Any, params: Any = None) -> Any:  # noqa: ARG002 - MLflow's signature
        number = next(self.requests)
        self._keep_company(number, str(list(model_input["messages"])))
        if self.mood == "quits" and number == 3:
            sys.exit(7)
        if self.mood == "crash" and number == 3:
            print("about to die", flush=True)
            os._exit(3)
        if self.mood == "hang" and number == 3:
            time.sleep(3600)
        if self.mood == "glutton" and number == 3:
            hoard: list[Any] = []
            for _ in itertools.count():
                hoard.append(bytearray(os.urandom(1 << 20)) * 16)
        rows = [
            {key: value for key, value in row.items() if value is not None and value == value}
            for row in _rows(model_input)
        ]
        return [self._answer(row) for row in rows]

    def predict_stream(
        self,
        context: Any,  # noqa: ARG002
        model_input: Any,
        params: Any = None,  # noqa: ARG002 - MLflow's signature
    ) -> Iterator[dict[str, Any]]:
        row = dict(model_input)
        whole = self._answer(row)
        base = {key: whole[key] for key in ("id", "created", "model")} | {
            "object": "chat.completion.chunk"
        }
        yield base | {
            "choices": [{"index": 0, "delta": {"role": "assistant"}, "finish_reason": None}]
        }
        for word in self._words(row)[: int(row.get("max_tokens") or 64)]:
            time.sleep(0.001)
            yield base | {
                "choices": [{"index": 0, "delta": {"content": word}, "finish_reason": None}]
            }
        yield base | {
            "choices": [
                {"index": 0, "delta": {}, "finish_reason": whole["choices"][0]["finish_reason"]}
            ]
        }
        yield base | {"choices": [], "usage": whole["usage"]}


def _rows(model_input: Any) -> Iterator[dict[str, Any]]:
    for row in model_input.to_dict(orient="records"):
        yield {
            key: value
            for key, value in row.items()
            if not (isinstance(value, float) and value != value)
        }


mlflow.models.set_model(Clerk())
