"""The ONNX variant: onnxruntime-genai alone, neither torch nor transformers."""

import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .driver import Core
from .model import ServedModel
from .onnx_core import OnnxCore, load_onnxruntime_genai


class OnnxTokenizer:
    """onnxruntime-genai's tokenizer behind a lock."""

    def __init__(self, folder: Path) -> None:
        og = load_onnxruntime_genai()
        self._tokenizer: Any = og.Tokenizer(og.Config(str(folder)))
        self._lock = threading.Lock()

    def renew_lock(self) -> None:
        """Take a lock that nobody holds."""
        self._lock = threading.Lock()

    def encode(self, text: str) -> list[int]:
        """Encode text; special-token text in it becomes special tokens.

        Bytes that the vocabulary lacks come back as -1, which no embedding has; they are left out, as transformers leaves them out.
        """
        with self._lock:
            return [int(token) for token in self._tokenizer.encode(text) if token >= 0]

    def decoder(self) -> Callable[[int], str]:
        """Start decoding an answer token by token."""
        with self._lock:
            decode: Callable[[int], str] = self._tokenizer.create_stream().decode
        return decode


class OnnxChatModel(ServedModel):
    """Serves an ONNX Runtime GenAI folder."""

    def make_tokenizer(self, folder: Path) -> OnnxTokenizer:
        """Read the folder's tokenizer."""
        return OnnxTokenizer(folder)

    def make_core(self, folder: Path) -> Core:
        """Load the folder's model."""
        settings = self.settings
        return OnnxCore(
            folder,
            threads=settings.intra_op_threads,
            max_batch_size=settings.max_batch_size,
            prefix_cache_bytes=settings.prefix_cache_bytes,
            execution_provider=settings.execution_provider,
            provider_options=dict(settings.provider_options or {}),
        )

    def read_context_length(self, folder: Path) -> int:
        """Read it from genai_config.json."""
        return int(json.loads((folder / "genai_config.json").read_text("utf-8"))["model"]["context_length"])
