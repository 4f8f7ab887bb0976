"""The request that a version must answer before it gets any other."""

import time
from contextlib import aclosing
from typing import Any

from steps.core.redaction import redact
from steps.serving.errors import ApiError
from steps.serving.worker_process import LoadFailedError, WorkerGoneError, WorkerProcess

QUESTION = {"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 4, "temperature": 0.0}
MOST_CHUNKS = 64  # of an answer of four tokens


async def hear_first_answer(worker: WorkerProcess, seconds: float) -> None:
    """Ask a worker a question, and hear the answer to its end.

    Raises:
        LoadFailedError: there is no answer within the time, or what comes is not one.
    """
    try:
        heard = await _answer(worker, time.monotonic() + seconds)
    except (ApiError, WorkerGoneError, TimeoutError) as error:
        said = redact(str(error)) or f"no answer within {seconds:.0f} s"
        tail = worker.tail()
        raise LoadFailedError(
            f"its first answer failed: {said}" + (f"; its log ends: {tail}" if tail else "")
        ) from error
    if not any(isinstance(chunk, dict) and chunk.get("choices") for chunk in heard):
        raise LoadFailedError("its first answer is not a chat completion")


async def _answer(worker: WorkerProcess, deadline: float) -> list[Any]:
    heard: list[Any] = []
    async with aclosing(worker.ask(QUESTION, deadline)) as chunks:
        async for chunk in chunks:
            heard.append(chunk)
            if len(heard) > MOST_CHUNKS:
                raise ApiError(500, "it does not end", code="model_error")
    return heard
