"""Splits an answer into its reasoning and what it says then, as its text arrives."""

from collections.abc import Sequence
from typing import NamedTuple


class Piece(NamedTuple):
    """Text that is certain: of the answer itself, and of the reasoning before it; ``tokens`` more
    have begun in what was shown of the answer by then.
    """

    content: str = ""
    reasoning: str = ""
    tokens: int = 0

    def __bool__(self) -> bool:
        return bool(self.content or self.reasoning)


def longest_held(text: str, stops: Sequence[str]) -> int:
    """Count characters at the end of ``text`` that may begin one of some strings."""
    longest = max((len(stop) for stop in stops), default=1)
    for length in range(min(longest - 1, len(text)), 0, -1):
        if any(stop.startswith(text[-length:]) for stop in stops):
            return length
    return 0


class ReasoningSplitter:
    """Takes the text of one answer in pieces of any size.

    Reasoning stands at the beginning, between two tags. White space around it belongs to neither
    part. Reasoning whose closing tag never comes is all that there is; without an opening tag all
    is content, to the letter.

    Args:
        opening: tag before the reasoning; empty where the model has no tags.
        closing: tag after it.
        opened: whether the prompt ends with the opening tag already.
    """

    def __init__(self, opening: str = "", closing: str = "", *, opened: bool = False) -> None:
        self._opening, self._closing = opening, closing
        self.tagged = bool(opening)
        self._held = ""  # what cannot be told yet
        self._step = self._begin if opening else self._say
        self.inside = self._opened = bool(opening) and opened
        self._started = False  # whether any reasoning was shown

    @property
    def held(self) -> int:
        """Characters that cannot be told yet."""
        return len(self._held)

    @property
    def undecided(self) -> bool:
        """Whether all of the text so far may be the beginning of an opening tag."""
        return self._step == self._begin

    def take(self, text: str) -> Piece:
        """Take more text; return what is certain."""
        if not text:
            return Piece()
        held, self._held = self._held + text, ""
        return self._step(held)

    def finish(self) -> Piece:
        """End the answer: return what was held back."""
        rest, self._held = self._held, ""
        if self.inside:
            return Piece(reasoning=rest.rstrip() if self._started else rest.strip())
        return Piece("" if self._step == self._skip else rest)

    def _begin(self, text: str) -> Piece:
        """Look for the opening tag."""
        ahead = text.lstrip()
        if len(ahead) < len(self._opening) and self._opening.startswith(ahead):
            self._held = text
            return Piece()
        if ahead.startswith(self._opening):
            ahead = ahead[len(self._opening) :]
        elif not self._opened:
            self._step = self._say
            return Piece(text)
        self.inside, self._step = True, self._reason
        return self._reason(ahead)

    def _reason(self, text: str) -> Piece:
        """Look for the closing tag."""
        shown, tag, after = text.partition(self._closing)
        if not tag:
            shown = text[: len(text) - longest_held(text, [self._closing])]
        certain = shown.rstrip()  # white space is only shown with what follows it
        if tag:
            self.inside, self._step = False, self._skip
        else:
            self._held = text[len(certain) :]
        if not self._started:
            certain = certain.lstrip()
            self._started = bool(certain)
        piece = Piece(reasoning=certain)
        return Piece(self._skip(after).content, certain) if tag else piece

    def _skip(self, text: str) -> Piece:
        """Leave out white space before the content."""
        text = text.lstrip()
        if text:
            self._step = self._say
        return Piece(text)

    def _say(self, text: str) -> Piece:
        return Piece(text)
