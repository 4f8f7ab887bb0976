"""Load a model as a stranger would, and ask it a few things. Run alone, in isolation, in a process
of its own; takes nothing of ours but
``peak_rss.py``, which the canary copies beside it.

    python -I canary_child.py <model folder> <result.json> <concurrent requests>

Writes ``{"passed": bool, "checks": [{"name", "passed", "detail"}], "peak_rss_bytes": int}``; the
network is refused from the first line on.
"""

import json
import os
import runpy
import socket
import sys
import traceback
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

os.environ["ORT_DISABLE_TELEMETRY"] = "1"
os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"

_connect = socket.socket.connect


class NetworkRefusedError(OSError):
    """Something wanted to leave the machine."""


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
    """What was checked, in order. The first failure does not end the others where they can still
    run.
    """

    def __init__(self) -> None:
        self.rows: list[dict[str, object]] = []

    def that(self, name: str, holds: bool, detail: object = "") -> bool:
        self.rows.append(
            {"name": name, "passed": bool(holds), "detail": "" if holds else str(detail)[:2000]}
        )
        return bool(holds)


def completion_fault(response: object) -> str | None:
    """What is wrong with a chat answer, if anything."""
    if not isinstance(response, list) or not response:
        return f"expected a list with one completion a row, got {type(response).__name__}"
    answer = response[0]
    try:
        content = answer["choices"][0]["message"]["content"]
        finish, usage = answer["choices"][0]["finish_reason"], answer["usage"]
    except (KeyError, IndexError, TypeError) as error:
        return f"not a chat completion ({type(error).__name__}: {error}): {answer!r}"
    if not isinstance(content, str):
        return f"content is {content!r}, expected text"
    if finish not in ("stop", "length"):
        return f"finish_reason is {finish!r}, expected stop or length"
    if usage["prompt_tokens"] + usage["completion_tokens"] != usage["total_tokens"]:
        return f"usage does not add up: {usage}"
    return None


def text_of(response: list[dict[str, Any]]) -> str:
    return str(response[0]["choices"][0]["message"]["content"])


def ask(model: Any, question: str) -> Any:
    return model.predict(
        {"messages": [{"role": "user", "content": question}], "max_tokens": 8, "temperature": 0.0}
    )


def exercise(folder: str, concurrency: int, checks: Checks) -> None:
    """Load, replay the input example, hold the contract, answer many at once."""
    import mlflow

    model = mlflow.pyfunc.load_model(folder)
    checks.that("loads", True)
    example = model.input_example
    if checks.that(
        "has an input example", example is not None, "log the model with an input_example"
    ):
        checks.that("replays its input example", len(model.predict(example)) > 0, "no answer")
    names = (
        set(model.metadata.get_input_schema().input_names())
        if model.metadata.get_input_schema()
        else set()
    )
    fault = (
        f"the signature has {sorted(names)}; an alias moves across variants, so each must take"
        " messages"
    )
    if not checks.that("takes messages", "messages" in names, fault):
        return
    alone = ask(model, "What is the capital of France?")
    wrong = completion_fault(alone)
    if not checks.that("answers a chat", wrong is None, wrong):
        return
    again = ask(model, "What is the capital of France?")
    checks.that(
        "greedy answers repeat",
        text_of(again) == text_of(alone),
        f"{text_of(alone)!r} then {text_of(again)!r}",
    )
    if "prompt" in names:
        answers = model.predict({"prompt": "The capital of France is", "max_tokens": 8})
        checks.that(
            "answers a prompt",
            isinstance(answers, list) and isinstance(answers[0], str),
            repr(answers)[:300],
        )
    questions = [f"Say the number {index}." for index in range(concurrency)]
    with ThreadPoolExecutor(concurrency) as pool:
        together = list(pool.map(lambda question: ask(model, question), questions))
    faults = [each for each in map(completion_fault, together) if each]
    checks.that(f"answers {concurrency} at once", not faults, "; ".join(faults))


def main() -> None:
    folder, result, concurrency = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
    socket.socket.connect = refuse  # type: ignore[method-assign,assignment]
    socket.getaddrinfo = refuse_name
    checks = Checks()
    try:
        exercise(folder, concurrency, checks)
    except Exception as error:  # noqa: BLE001  (whatever a stranger's model raises is the result)
        checks.that(
            "runs to the end",
            False,
            f"{type(error).__name__}: {error}\n{traceback.format_exc()[-1500:]}",
        )
    held = runpy.run_path(str(Path(__file__).with_name("peak_rss.py")))
    passed = bool(checks.rows) and all(row["passed"] for row in checks.rows)
    result.write_text(
        json.dumps({"passed": passed, "checks": checks.rows, "peak_rss_bytes": held["peak_rss"]()})
    )


if __name__ == "__main__":
    main()
