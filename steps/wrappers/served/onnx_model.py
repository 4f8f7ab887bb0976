"""The ONNX variant: onnxruntime-genai and the checkpoint's tokenizer, neither torch nor
transformers.
"""

from pathlib import Path

from .grammar_trial import GrammarTrial
from .grammars import Grammar
from .limits import Limits, limits_of_onnx
from .model import ServedModel
from .onnx_backend import OnnxCore
from .scheduler import Core
from .tokenizer import CheckpointTokenizer


class OnnxChatModel(ServedModel):
    """Serves an ONNX Runtime GenAI folder."""

    def __init__(self) -> None:
        super().__init__()
        self._trial: GrammarTrial | None = None  # made for the first grammar that is tried

    def make_tokenizer(self, folder: Path) -> CheckpointTokenizer:
        """Read the folder's tokenizer."""
        return CheckpointTokenizer.of_folder(folder)

    def require_grammar(self, grammar: Grammar) -> None:
        """Try it in a process of its own."""
        with self._lock:
            if self._trial is None:
                assert self._folder is not None
                self._trial = GrammarTrial(self._folder)
        self._trial.require(grammar)

    def close(self) -> None:
        """Stop the engine, and the process that tries grammars."""
        super().close()
        if self._trial is not None:
            self._trial.close()

    def renew_trial_lock(self) -> None:
        """Take another lock."""
        if self._trial is not None:
            self._trial.renew_lock()

    def make_core(self, folder: Path) -> Core:
        """Load the folder's model."""
        settings = self.settings
        return OnnxCore(
            folder,
            limits=self.limits,
            threads=settings.intra_op_threads,
            max_batch_size=settings.max_batch_size,
            prefix_cache_bytes=settings.prefix_cache_bytes,
            execution_provider=settings.execution_provider,
            provider_options=dict(settings.provider_options or {}),
        )

    def read_limits(self, folder: Path) -> Limits:
        """Read them from what was found when the folder was prepared."""
        return limits_of_onnx(folder)
