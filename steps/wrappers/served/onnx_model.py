"""The ONNX variant: onnxruntime-genai and the checkpoint's tokenizer, without torch."""

from pathlib import Path

from .backend import Backend
from .grammar_trial import GrammarTrial
from .grammars import Grammar
from .limits import Limits, limits_of_onnx
from .model import ServedModel
from .onnx_backend import OnnxBackend
from .tokenizer import CheckpointTokenizer


class OnnxChatModel(ServedModel):
    """Serves an ONNX Runtime GenAI folder."""

    def __init__(self) -> None:
        super().__init__()
        self.trial: GrammarTrial | None = None

    def _open(self, folder: Path) -> None:
        super()._open(folder)
        self.trial = GrammarTrial(folder)

    def make_tokenizer(self, folder: Path) -> CheckpointTokenizer:
        """Read the folder's tokenizer."""
        return CheckpointTokenizer.of_folder(folder)

    def require_grammar(self, grammar: Grammar) -> None:
        """Try it in a process of its own."""
        assert self.trial is not None  # load_context makes it
        self.trial.require(grammar)

    def close(self) -> None:
        """Stop the engine, and the process that tries grammars."""
        super().close()
        if self.trial is not None:
            self.trial.close()

    def make_backend(self) -> Backend:
        """Load the folder's model."""
        settings, folder = self.settings, self.folder
        assert folder is not None
        return OnnxBackend(
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
