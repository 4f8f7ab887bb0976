"""The transformers variant: the same contract over the weights of the model's own transformers flavor."""

import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .driver import Core
from .model import ServedModel
from .transformers_core import TransformersCore


class TransformersTokenizer:
    """A checkpoint's fast tokenizer; it adds no special tokens of its own, as the template has written them."""

    def __init__(self, folder: Path) -> None:
        from transformers import AutoTokenizer

        self._tokenizer: Any = AutoTokenizer.from_pretrained(str(folder))
        self._lock = threading.Lock()

    def renew_lock(self) -> None:
        """Take a lock that nobody holds."""
        self._lock = threading.Lock()

    def encode(self, text: str) -> list[int]:
        """Encode text; special-token text in it becomes special tokens."""
        with self._lock:
            return [int(token) for token in self._tokenizer.encode(text, add_special_tokens=False)]

    def decoder(self) -> Callable[[int], str]:
        """Start decoding an answer token by token.

        Text is taken from the whole answer so far, as a token's text depends on those before it: leading spaces, characters of several
        tokens. Only what follows the last complete word is decoded anew.
        """
        tokens: list[int] = []
        start, shown = 0, 0

        def decode(token: int) -> str:
            nonlocal start, shown
            tokens.append(token)
            with self._lock:
                before = self._tokenizer.decode(tokens[start:shown], skip_special_tokens=True)
                after = self._tokenizer.decode(tokens[start:], skip_special_tokens=True)
            if after.endswith("\ufffd"):
                return ""
            piece: str = after[len(before) :]
            start, shown = shown, len(tokens)
            return piece

        return decode


class TransformersChatModel(ServedModel):
    """Serves a checkpoint folder."""

    grammars = False

    def make_tokenizer(self, folder: Path) -> TransformersTokenizer:
        """Read the folder's tokenizer."""
        return TransformersTokenizer(folder)

    def make_core(self, folder: Path) -> Core:
        """Load the folder's weights."""
        return TransformersCore(folder, threads=self.settings.intra_op_threads, device=self.settings.execution_provider or "cpu")

    def read_context_length(self, folder: Path) -> int:
        """Read it from config.json."""
        return int(json.loads((folder / "config.json").read_text("utf-8"))["max_position_embeddings"])
