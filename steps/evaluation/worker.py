"""The process that one candidate lives in: loads it as users do and obeys one JSON command a line
on a socket.

Started as a plain file by ``worker_process.py`` with ``python -P worker.py <socket fd>``, in an
empty folder and without the project on the path, so a model that cannot be loaded elsewhere fails
here. It therefore imports nothing of ``steps``: what it shares with the other side are the package
``conformance`` and the files ``timing.py`` and ``logits.py`` beside it, and ``peak_rss.py``.
"""

import importlib.util
import json
import os
import queue
import runpy
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

PEAK_RSS = Path(__file__).parents[1] / "core" / "peak_rss.py"


def sibling(name: str) -> ModuleType:
    """Load a file or a package beside this file as a module of its own."""
    module = sys.modules.get(f"slm_{name}")
    if module is None:
        package = Path(__file__).with_name(name)
        file = package / "__init__.py" if package.is_dir() else package.with_suffix(".py")
        spec = importlib.util.spec_from_file_location(f"slm_{name}", file)
        if spec is None or spec.loader is None:
            raise ImportError(f"{name} is missing beside {Path(__file__).name}")
        module = importlib.util.module_from_spec(spec)
        sys.modules[f"slm_{name}"] = module
        spec.loader.exec_module(module)
    return module


class Worker:
    """One loaded model and the commands it answers; each command is a method that takes and gives
    JSON values.
    """

    def __init__(self) -> None:
        self.model: Any = None
        self.meter: Any = None
        self.metered: tuple[str, str] | None = None  # kind and folder that the meter has open
        # number, and what it ended in, of the requests that run in threads of their own
        self._ended: queue.SimpleQueue[tuple[int, dict[str, Any] | BaseException]] = (
            queue.SimpleQueue()
        )

    def load(self, uri: str) -> dict[str, Any]:
        """Load a model and answer one token, as lazy engines start on the first request. Times in
        seconds, without MLflow's own import.
        """
        import mlflow

        mlflow.tracing.disable()
        started = time.perf_counter()
        self.model = mlflow.pyfunc.load_model(uri)
        self.answer([{"role": "user", "content": "Hello"}], 1)
        return {"ready_s": time.perf_counter() - started}

    def answer(
        self, messages: list[dict[str, str]], max_tokens: int, reasoning_tokens: int = 0
    ) -> dict[str, Any]:
        """One greedy answer: text, finish reason, tokens and seconds.

        Args:
            messages: the conversation; where the model's template has no system role, such a
                message goes in front of the user's first.
            max_tokens: tokens of what is scored.
            reasoning_tokens: further tokens for reasoning before it, where the model reasons.
        """
        template = sibling("conformance").capabilities(self.model).get("template") or {}
        budget = reasoning_tokens if (template.get("thinking") or {}).get("closing") else 0
        if not template.get("system_role", True):
            messages = folded(messages)
        started = time.perf_counter()
        completion = self._ask(messages, max_tokens + budget)
        reasoned = int(
            (completion["usage"].get("completion_tokens_details") or {}).get("reasoning_tokens")
            or 0
        )
        if (
            budget
            and reasoned < budget
            and completion["usage"]["completion_tokens"] - reasoned > max_tokens
        ):
            # what was left of its reasoning is not there to answer at more length
            completion = self._ask(messages, reasoned + max_tokens)
        elapsed = time.perf_counter() - started
        choice = completion["choices"][0]
        return {
            "text": choice["message"].get("content") or "",
            "finish_reason": choice.get("finish_reason"),
            "completion_tokens": int(completion.get("usage", {}).get("completion_tokens") or 0),
            "latency_s": elapsed,
        }

    def answer_next(self, begin: list[dict[str, Any]]) -> dict[str, Any]:
        """Begin requests, each in a thread of its own, and wait for the first that ends, of these
        or of earlier ones.

        Args:
            begin: the arguments of ``answer`` of each, and a ``number`` that tells it from the
                others.

        Returns:
            ``number`` of the one that ended, and its ``answer``, or the ``error`` that it raised.
        """
        for request in begin:
            threading.Thread(target=self._answer_beside, kwargs=request, daemon=True).start()
        number, said = self._ended.get()
        if isinstance(said, dict):
            return {"number": number, "answer": said, "error": None}
        if not isinstance(said, Exception) or isinstance(said, MemoryError):
            raise said  # is the end of a process, in whatever thread it is raised
        traceback.print_exception(said)
        return {"number": number, "answer": None, "error": f"{type(said).__name__}: {said}"}

    def _answer_beside(self, number: int, **request: Any) -> None:
        try:
            self._ended.put((number, self.answer(**request)))
        except BaseException as error:  # noqa: BLE001 - raised or told where it is waited for
            self._ended.put((number, error))

    def _ask(self, messages: list[dict[str, str]], max_tokens: int) -> dict[str, Any]:
        row = {"messages": messages, "max_tokens": max_tokens, "temperature": 0.0}
        completion: dict[str, Any] = sibling("conformance").chat(self.model, row)
        return completion

    def prompt_tokens(self, messages: list[dict[str, str]]) -> int | None:
        """Tokens of a conversation as the served model counts them; None where it refuses the
        conversation's system message.
        """
        try:
            return int(self._ask(messages, 1)["usage"]["prompt_tokens"])
        except Exception as error:
            if (
                getattr(error, "error_code", None) == "INVALID_PARAMETER_VALUE"
                and messages[0]["role"] == "system"
            ):
                return None
            raise

    def conformance(self) -> list[dict[str, Any]]:
        """The chat contract, row by row."""
        from dataclasses import asdict

        return [asdict(row) for row in sibling("conformance").conformance(self.model)]

    def stream(self, prompt_tokens: int, new_tokens: int, nonce: int) -> dict[str, Any]:
        """One timed answer: seconds to the first token and between tokens."""
        result: dict[str, Any] = sibling("timing").stream(
            self.model, prompt_tokens, new_tokens, nonce
        )
        return result

    def timed_prompt(self, prompt_tokens: int) -> int | None:
        """Tokens that a timed prompt really has; a stream does not always say."""
        return self.prompt_tokens(sibling("timing").prompt(prompt_tokens, 0))

    def burst(self, concurrency: int, new_tokens: int, nonce: int) -> dict[str, Any]:
        """``concurrency`` requests at once through threads: tokens and seconds."""
        result: dict[str, Any] = sibling("timing").burst(self.model, concurrency, new_tokens, nonce)
        return result

    def open_meter(self, kind: str, folder: str) -> dict[str, Any]:
        """Open a folder of weights for its logits; ``kind`` is ``checkpoint`` or ``onnx``."""
        if self.metered != (kind, folder):
            self.meter = sibling("logits").open_meter(kind, folder)
            self.metered = (kind, folder)
        return {
            "vocabulary": self.meter.vocabulary,
            "bos": self.meter.bos,
            "context": self.meter.context,
            "borders": self.meter.borders,
        }

    def tokenize(self, text: str) -> list[int]:
        """Token ids of a text, without special tokens."""
        ids: list[int] = self.meter.tokenize(text)
        return ids

    def render(self, messages: list[dict[str, str]]) -> list[int] | None:
        """Token ids of a conversation in the folder's own chat template, ready for an answer; None
        where the template refuses it.
        """
        ids: list[int] | None = self.meter.render(messages)
        return ids

    def write_logits(self, ids: list[int], file: str, last: int | None = None) -> None:
        """Write the logits of one window, or of its last tokens, shape (tokens, vocabulary), to
        ``file``.
        """
        import numpy as np

        np.save(file, self.meter.logits(ids, last))

    def compare_logits(
        self, ids: list[int], file: str, last: int | None = None
    ) -> dict[str, list[float]]:
        """Compare this model's logits of one window, or of its last tokens, with those in
        ``file``.
        """
        import numpy as np

        compared = ids if last is None else ids[-last:]
        values: dict[str, list[float]] = sibling("logits").compare(
            np.load(file, mmap_mode="r"), self.meter.logits(ids, last), compared
        )
        return values

    def continue_greedily(self, ids: list[int], tokens: int) -> list[int]:
        """Greedy continuation of a prompt, as token ids."""
        continuation: list[int] = self.meter.continue_greedily(ids, tokens)
        return continuation

    def peak_rss(self) -> int:
        """Most resident bytes this process has held, as the kernel counts them."""
        held: int = runpy.run_path(str(PEAK_RSS))["peak_rss"]()
        return held


def folded(messages: list[dict[str, str]]) -> list[dict[str, str]]:
    """A conversation with its system message in front of the user's first one, as a template
    without that role is written to.
    """
    if messages[0]["role"] != "system" or len(messages) < 2:
        return messages
    first = {**messages[1], "content": f"{messages[0]['content']}\n\n{messages[1]['content']}"}
    return [first, *messages[2:]]


def serve(connection: socket.socket, worker: Worker) -> None:
    """Answer commands until the other side hangs up."""
    with connection, connection.makefile("rb") as lines:
        for line in lines:
            request = json.loads(line)
            command: Callable[..., Any] = getattr(worker, request.pop("command"))
            try:
                reply = {"result": command(**request)}
            except Exception as error:  # noqa: BLE001 - whatever the model raises is a result, told to the other side
                traceback.print_exc()
                reply = {"error": f"{type(error).__name__}: {error}", "kind": type(error).__name__}
            connection.sendall(json.dumps(reply).encode() + b"\n")


def end_with(parent: int) -> None:
    """End this process when its parent is gone, whatever the model is doing: an evaluation that was
    killed leaves nothing behind.
    """
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


def main() -> None:
    threading.Thread(target=end_with, args=(os.getppid(),), daemon=True).start()
    connection = socket.socket(fileno=int(sys.argv[1]))
    serve(connection, Worker())
    sys.stdout.flush()
    sys.stderr.flush()
    # the evaluation has what it needs; a model's slow or crashing shutdown is the canary's business
    os._exit(0)


if __name__ == "__main__":
    main()
