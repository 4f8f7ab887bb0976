"""Log probabilities of an answer's tokens in OpenAI's shape."""

from collections.abc import Callable, Iterable
from typing import Any, Protocol

TokenText = Callable[[int], tuple[str, bytes]]  # a token's text, and its bytes


class Told(Protocol):
    """What the model thought of a token (``sampling.TokenLogprobs``)."""

    @property
    def token(self) -> int:
        """Its id."""

    @property
    def logprob(self) -> float:
        """Natural logarithm of its probability."""

    @property
    def top(self) -> tuple[tuple[int, float], ...]:
        """The likeliest tokens and theirs, falling."""


def logprobs_of(told: Iterable[Told], text: TokenText) -> dict[str, Any]:
    """Shape the log probabilities of a choice, or of a part of it.

    Args:
        told: of the tokens, in order.
        text: of one token.
    """

    def entry(token: int, logprob: float) -> dict[str, Any]:
        shown, raw = text(token)
        return {"token": shown, "logprob": logprob, "bytes": list(raw)}

    content = [
        {**entry(one.token, one.logprob), "top_logprobs": [entry(*likely) for likely in one.top]}
        for one in told
    ]
    return {"content": content, "refusal": None}
