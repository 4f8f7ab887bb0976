"""Stands for a tokenizer's decoder: text of each token by a function, nothing held back."""

from collections.abc import Callable


class PieceDecoder:
    """Decodes every token by itself.

    Args:
        text: of a token.
    """

    def __init__(self, text: Callable[[int], str]) -> None:
        self._text = text

    def __call__(self, token: int) -> str:
        return self._text(token)

    def finish(self) -> str:
        return ""
