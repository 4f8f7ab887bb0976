"""What goes back: text cut at stop strings, and the OpenAI shapes of completions and chunks."""

import time
import uuid
from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from .reasoning import Piece, ReasoningSplitter, longest_held
from .tool_calls import Offer, tool_calls_in


def first_stop(text: str, stops: Iterable[str]) -> int | None:
    """Find where the earliest stop string begins."""
    positions = [position for position in map(text.find, stops) if position >= 0]
    return min(positions, default=None)


class Decoder(Protocol):
    """Turns the token ids of one answer into its text, as they come."""

    def __call__(self, token: int) -> str:
        """Text that one more token completes."""

    def finish(self) -> str:
        """Text that no later token completes any more."""


class AnswerText:
    """Text of one answer as its tokens arrive, never showing any part of a stop string; reasoning
    is told from content.

    Args:
        decoder: makes what turns one more token id into the text it completes ('' while a character
            is incomplete).
        stops: strings in the content that end the answer; reasoning may hold them.
        splitter: makes what splits reasoning from content.
        dropped: special tokens that the decoder shows to tell reasoning by; they are not content.
    """

    def __init__(
        self,
        decoder: Callable[[], Decoder],
        stops: Sequence[str],
        splitter: Callable[[], ReasoningSplitter] = ReasoningSplitter,
        dropped: frozenset[str] = frozenset(),
    ) -> None:
        self._decoder, self._splitter = decoder, splitter
        self._stops, self._dropped = stops, dropped
        self.restart()

    def restart(self) -> None:
        """Forget everything."""
        self._decode = self._decoder()
        self._split = self._splitter()
        self._held = ""  # what may be the beginning of a stop string
        self._shown: list[Piece] = []
        self._undecided = 0  # tokens that may turn out to be the beginning of an opening tag
        self.stopped = False
        self.reasoning_tokens = 0
        # of every token the characters decoded before it; of all of them; tokens that were shown
        self._begins: list[int] = []
        self._decoded = self._told = 0

    def add(self, token: int) -> Piece:
        """Take a token; return the text that is now certain."""
        inside = self._split.inside
        self._begins.append(self._decoded)
        piece = self._split.take(self._heard(self._decode(token)))
        if inside or self._split.inside:
            self.reasoning_tokens, self._undecided = self.reasoning_tokens + self._undecided + 1, 0
        else:
            self._undecided = self._undecided + 1 if self._split.undecided else 0
        certain = self._take(piece)
        return certain._replace(tokens=self._newly_told()) if certain else certain

    def _heard(self, text: str) -> str:
        self._decoded += len(text)
        return text

    def _newly_told(self, *, ended: bool = False) -> int:
        """Count tokens that begin in what is shown by now and were not counted; at the end these
        are all, but for those within a stop string.
        """
        if not self.stopped:
            shown = self._decoded - self._split.held - len(self._held)
            told = len(self._begins) if ended else bisect_left(self._begins, shown)
        else:
            told = bisect_left(self._begins, self._cut)
        before, self._told = self._told, max(told, self._told)
        return self._told - before

    def _take(self, piece: Piece) -> Piece:
        if self.stopped or not piece:
            return Piece()
        text = piece.content
        for mark in self._dropped:
            text = text.replace(mark, "")
        if self._stops and text:
            text = self._held + text
            position = first_stop(text, self._stops)
            if position is not None:
                # what the splitter holds comes after
                self._cut = self._decoded - self._split.held - (len(text) - position)
                self.stopped, self._held, text = True, "", text[:position]
            else:
                keep = longest_held(text, self._stops)
                self._held, text = text[len(text) - keep :], text[: len(text) - keep]
        certain = Piece(text, piece.reasoning)
        self._shown.append(certain)
        return certain

    def finish(self) -> Piece:
        """End the answer: return text held back for the decoder, a tag or a stop string."""
        pieces = [
            self._take(self._split.take(self._heard(self._decode.finish()))),
            self._take(self._split.finish()),
        ]
        if not self.stopped:
            pieces.append(Piece(self._held))
            self._shown.append(pieces[-1])
        self._held = ""
        return Piece(
            "".join(piece.content for piece in pieces),
            "".join(piece.reasoning for piece in pieces),
            self._newly_told(ended=True),
        )

    @property
    def text(self) -> str:
        """All content that is certain so far."""
        return "".join(piece.content for piece in self._shown)

    @property
    def reasoning(self) -> str:
        """All reasoning that is certain so far."""
        return "".join(piece.reasoning for piece in self._shown)

    def answer(self, finish_reason: str, tokens: int, cached_tokens: int) -> "Answer":
        """The finished answer."""
        reason = "stop" if self.stopped else finish_reason
        return Answer(
            self.text,
            reason,
            tokens,
            cached_tokens,
            self.reasoning,
            self.reasoning_tokens if self._split.tagged else None,
            self._told,
        )


@dataclass(frozen=True)
class Answer:
    """One finished choice.

    Args:
        text: without special tokens and reasoning, cut at the stop string.
        finish_reason: ``stop`` on an end token or a stop string, ``length`` on a token limit.
        tokens: generated tokens, the end token included.
        cached_tokens: prompt tokens that were not computed again.
        reasoning: what came before, where the model reasons.
        reasoning_tokens: generated tokens that belong to it, its tags included; None where it
            cannot be told from the answer.
        told: generated tokens that begin in what is shown: neither an end token nor those within a
            stop string.
        logprobs: of these, in OpenAI's shape, where the request asks for them.
    """

    text: str
    finish_reason: str
    tokens: int
    cached_tokens: int = 0
    reasoning: str = ""
    reasoning_tokens: int | None = None
    told: int = 0
    logprobs: dict[str, Any] | None = None


def usage_of(prompt_tokens: int, answers: Sequence[Answer]) -> dict[str, Any]:
    """Count tokens as OpenAI does; the sum holds."""
    generated = sum(answer.tokens for answer in answers)
    reasoned = [
        answer.reasoning_tokens for answer in answers if answer.reasoning_tokens is not None
    ]
    return {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": generated,
        "total_tokens": prompt_tokens + generated,
        "prompt_tokens_details": {
            "cached_tokens": max((answer.cached_tokens for answer in answers), default=0)
        },
        **({"completion_tokens_details": {"reasoning_tokens": sum(reasoned)}} if reasoned else {}),
    }


def completion(
    model: str, prompt_tokens: int, answers: Sequence[Answer], *, offer: Offer | None = None
) -> dict[str, Any]:
    """Shape answers as one chat completion; ``offer`` says which tools they may call."""
    choices: list[dict[str, Any]] = []
    for index, answer in enumerate(answers):
        content, calls = tool_calls_in(answer.text, offer or Offer())
        message: dict[str, Any] = {
            "role": "assistant",
            "content": None if calls and not content else content,
        }
        if answer.reasoning:
            message["reasoning_content"] = answer.reasoning
        if calls:
            message["tool_calls"] = calls
        reason = "tool_calls" if calls and answer.finish_reason == "stop" else answer.finish_reason
        told = {} if answer.logprobs is None else {"logprobs": answer.logprobs}
        choices.append({"index": index, "message": message, **told, "finish_reason": reason})
    usage = usage_of(prompt_tokens, answers)
    return {**_head("chat.completion", model), "choices": choices, "usage": usage}


class Chunks:
    """Shapes the chunks of one streamed chat completion: they share id, time and model."""

    def __init__(self, model: str) -> None:
        self._head = _head("chat.completion.chunk", model)

    def chunk(
        self,
        index: int,
        *,
        finish_reason: str | None = None,
        logprobs: dict[str, Any] | None = None,
        **delta: Any,
    ) -> dict[str, Any]:
        """A part of a choice: its role, more of its text, or its end."""
        told = {} if logprobs is None else {"logprobs": logprobs}
        choice = {"index": index, "delta": delta, **told, "finish_reason": finish_reason}
        return {**self._head, "choices": [choice]}

    def usage(self, prompt_tokens: int, answers: Sequence[Answer]) -> dict[str, Any]:
        """The token counts, which close the stream."""
        return {**self._head, "choices": [], "usage": usage_of(prompt_tokens, answers)}


def _head(kind: str, model: str) -> dict[str, Any]:
    identity, created = f"chatcmpl-{uuid.uuid4().hex}", int(time.time())
    return {"id": identity, "object": kind, "created": created, "model": model}
