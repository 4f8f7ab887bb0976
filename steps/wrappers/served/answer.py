"""What goes back: text cut at stop strings, and the OpenAI shapes of completions and chunks."""

import json
import time
import uuid
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol


def longest_held(text: str, stops: Sequence[str]) -> int:
    """Count the characters at the end of ``text`` that may be the beginning of a stop string."""
    longest = max((len(stop) for stop in stops), default=1)
    for length in range(min(longest - 1, len(text)), 0, -1):
        if any(stop.startswith(text[-length:]) for stop in stops):
            return length
    return 0


def first_stop(text: str, stops: Iterable[str]) -> int | None:
    """Find where the earliest stop string begins."""
    found = [position for position in (text.find(stop) for stop in stops) if position >= 0]
    return min(found, default=None)


class Decoder(Protocol):
    """Turns the token ids of one answer into its text, as they come."""

    def __call__(self, token: int) -> str:
        """Text that one more token completes."""

    def finish(self) -> str:
        """Text that no later token completes any more."""


class AnswerText:
    """Text of one answer as its tokens arrive, never showing any part of a stop string.

    Args:
        decoder: makes what turns one more token id into the text it completes ('' while a character is incomplete).
        stops: strings that end the answer.
    """

    def __init__(self, decoder: Callable[[], Decoder], stops: Sequence[str]) -> None:
        self._decoder, self._stops = decoder, stops
        self.restart()

    def restart(self) -> None:
        """Forget everything."""
        self._decode = self._decoder()
        self._held = ""  # what may be the beginning of a stop string
        self._shown: list[str] = []
        self.stopped = False

    def add(self, token: int) -> str:
        """Take a token; return the text that is now certain."""
        return self._take(self._decode(token))

    def _take(self, piece: str) -> str:
        if self.stopped or not piece:
            return ""
        text = self._held + piece
        if not self._stops:
            self._shown.append(text)
            return text
        position = first_stop(text, self._stops)
        if position is not None:
            self.stopped, self._held, certain = True, "", text[:position]
        else:
            keep = longest_held(text, self._stops)
            self._held, certain = text[len(text) - keep :], text[: len(text) - keep]
        self._shown.append(certain)
        return certain

    def finish(self) -> str:
        """End the answer: text that the decoder or a stop string's beginning held back is certain now."""
        last = self._take(self._decode.finish())
        rest, self._held = self._held, ""
        self._shown.append(rest)
        return last + rest

    @property
    def text(self) -> str:
        """All that is certain so far."""
        return "".join(self._shown)


@dataclass(frozen=True)
class Answer:
    """One finished choice.

    Args:
        text: without special tokens, cut at the stop string.
        finish_reason: ``stop`` on an end token or a stop string, ``length`` on a token limit.
        tokens: generated tokens, the end token included.
        cached_tokens: prompt tokens that were not computed again.
    """

    text: str
    finish_reason: str
    tokens: int
    cached_tokens: int = 0


def usage_of(prompt_tokens: int, answers: Sequence[Answer]) -> dict[str, Any]:
    """Count tokens as OpenAI does; the sum holds."""
    generated = sum(answer.tokens for answer in answers)
    return {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": generated,
        "total_tokens": prompt_tokens + generated,
        "prompt_tokens_details": {"cached_tokens": max((answer.cached_tokens for answer in answers), default=0)},
    }


def completion(model: str, prompt_tokens: int, answers: Sequence[Answer], *, tools: Sequence[str] = ()) -> dict[str, Any]:
    """Shape answers as one chat completion; ``tools`` are the names of those that were offered."""
    choices: list[dict[str, Any]] = []
    for index, answer in enumerate(answers):
        content, calls = tool_calls_in(answer.text, tools)
        message: dict[str, Any] = {"role": "assistant", "content": None if calls and not content else content}
        if calls:
            message["tool_calls"] = calls
        reason = "tool_calls" if calls and answer.finish_reason == "stop" else answer.finish_reason
        choices.append({"index": index, "message": message, "finish_reason": reason})
    return {
        "id": f"chatcmpl-{uuid.uuid4().hex}",
        "object": "chat.completion",
        "created": int(time.time()),
        "model": model,
        "choices": choices,
        "usage": usage_of(prompt_tokens, answers),
    }


class Chunks:
    """Shapes the chunks of one streamed chat completion: they share id, time and model."""

    def __init__(self, model: str) -> None:
        self._head = {"id": f"chatcmpl-{uuid.uuid4().hex}", "object": "chat.completion.chunk", "created": int(time.time()), "model": model}

    def role(self, index: int) -> dict[str, Any]:
        """Open a choice."""
        return self._chunk(index, {"role": "assistant", "content": ""}, None)

    def delta(self, index: int, text: str) -> dict[str, Any]:
        """Carry more text."""
        return self._chunk(index, {"content": text}, None)

    def calls(self, index: int, calls: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """Carry tool calls."""
        return self._chunk(index, {"tool_calls": [{"index": number, **call} for number, call in enumerate(calls)]}, None)

    def finish(self, index: int, reason: str) -> dict[str, Any]:
        """Close a choice."""
        return self._chunk(index, {}, reason)

    def usage(self, prompt_tokens: int, answers: Sequence[Answer]) -> dict[str, Any]:
        """Close the stream with its token counts."""
        return {**self._head, "choices": [], "usage": usage_of(prompt_tokens, answers)}

    def _chunk(self, index: int, delta: dict[str, Any], reason: str | None) -> dict[str, Any]:
        return {**self._head, "choices": [{"index": index, "delta": delta, "finish_reason": reason}]}


TOOL_MARKS = (("<tool_call>", "</tool_call>"), ("<|tool_call|>", "<|/tool_call|>"), ("[TOOL_CALLS]", ""))


def tool_calls_in(text: str, offered: Sequence[str]) -> tuple[str, list[dict[str, Any]]]:
    """Read tool calls out of an answer, as Qwen, Phi, Mistral and Llama 3 write them.

    Args:
        text: the whole answer.
        offered: names of the tools that may be called.

    Returns:
        What was said beside the calls, and the calls; all of the text and no call, where one of them is no JSON, names a tool that nobody
        offered, or has arguments that are no object.
    """
    if not offered:
        return text, []
    said, bodies = "", [text.strip()]
    for opening, closing in TOOL_MARKS:
        if opening in text:
            first, *parts = text.split(opening)
            cut = [part.partition(closing) if closing else (part, "", "") for part in parts]
            bodies = [body for body, _, _ in cut]
            said = "".join([first, *(rest for _, _, rest in cut)]).strip()
            break
    calls: list[dict[str, Any]] = []
    for body in bodies:
        try:
            found = json.loads(body)
        except (ValueError, RecursionError):
            return text, []
        for call in found if isinstance(found, list) else [found]:
            arguments = _arguments(call)
            if arguments is None or call.get("name") not in offered:
                return text, []
            function = {"name": call["name"], "arguments": arguments}
            calls.append({"id": f"call_{uuid.uuid4().hex[:24]}", "type": "function", "function": function})
    return (said, calls) if calls else (text, [])


def _arguments(call: Any) -> str | None:
    """The arguments of a call as JSON; None where they are no object."""
    given = call.get("arguments", call.get("parameters")) if isinstance(call, dict) else None
    if isinstance(given, dict):
        return json.dumps(given)
    try:
        return given if isinstance(given, str) and isinstance(json.loads(given), dict) else None
    except (ValueError, RecursionError):
        return None
