"""What a worker sends, read with care: the code of a model can write to its socket as well."""

import asyncio
import json
from typing import Any

from steps.serving.errors import ApiError

MOST_UNREAD = 1 << 24  # bytes of an answer that was sent and not read
MOST_SIDE_BY_SIDE = 4096  # answers
COUNTS = ("prompt_tokens", "completion_tokens", "total_tokens")
HEAD = {"id", "created", "choices"}  # what every chunk of a chat answer has


class Replies:
    """What a worker has sent of one answer and nobody has read yet, within a bound."""

    def __init__(self) -> None:
        self._queue: asyncio.Queue[tuple[dict[str, Any] | None, int]] = asyncio.Queue()
        self._unread = 0

    def put(self, said: dict[str, Any] | None, size: int = 0) -> bool:
        """Take a reply of so many bytes; False where more is unread than may be, which ends the
        answer.
        """
        self._unread += size
        if self._unread > MOST_UNREAD:
            error = {"error": "more of the answer is unread than may be", "status": 500}
            self._queue.put_nowait((error, 0))
            return False
        self._queue.put_nowait((said, size))
        return True

    async def get(self) -> dict[str, Any] | None:
        """The next reply."""
        said, size = await self._queue.get()
        self._unread -= size
        return said


def parsed(line: bytes) -> dict[str, Any]:
    if not line:
        return {}
    value = json.loads(line, parse_constant=_no_number)
    if not isinstance(value, dict):
        raise ValueError("a line that is not an object")
    return value


def capacity_of(ready: Any) -> int:
    capacity = ready.get("capacity") if isinstance(ready, dict) else None
    if not isinstance(capacity, int) or not 1 <= capacity <= MOST_SIDE_BY_SIDE:
        raise ValueError("its capacity is not a number of answers")
    return capacity


def checked(chunk: Any) -> Any:
    """A chunk as the wrappers yield it; the code of a model can write anything.

    Raises:
        ApiError: it is not one.
    """
    if isinstance(chunk, str):
        return chunk
    if isinstance(chunk, dict) and _is_usage(chunk.get("usage")):
        choices = chunk.get("choices")
        if choices is None and isinstance(chunk.get("finish_reason"), str) and "usage" in chunk:
            return chunk
        if isinstance(choices, list) and all(map(_is_choice, choices)) and chunk.keys() >= HEAD:
            return chunk
    raise ApiError(500, "the model streamed what is not a chunk", code="model_error")


def _is_usage(usage: Any) -> bool:
    return usage is None or (
        isinstance(usage, dict)
        and all(isinstance(usage.get(key), int) and usage[key] >= 0 for key in COUNTS)
    )


def _is_choice(choice: Any) -> bool:
    return (
        isinstance(choice, dict)
        and isinstance(choice.get("index"), int)
        and isinstance(choice.get("logprobs") or {}, dict)
        and isinstance(choice.get("delta"), dict)
        and isinstance(choice["delta"].get("content") or "", str)
        and isinstance(choice["delta"].get("reasoning_content") or "", str)
        and isinstance(choice["delta"].get("tool_calls") or [], list)
        and all(isinstance(call, dict) for call in choice["delta"].get("tool_calls") or [])
        and isinstance(choice.get("finish_reason") or "", str)
    )


def _no_number(name: str) -> float:
    raise ValueError(f"{name} is not a JSON number")
