"""The ONNX variant: onnxruntime-genai and the checkpoint's tokenizer, neither torch nor transformers."""

from pathlib import Path

from .driver import Core
from .limits import Limits, limits_of_onnx
from .model import ServedModel
from .onnx_core import OnnxCore
from .tokenizer import CheckpointTokenizer


class OnnxChatModel(ServedModel):
    """Serves an ONNX Runtime GenAI folder."""

    def make_tokenizer(self, folder: Path) -> CheckpointTokenizer:
        """Read the folder's tokenizer."""
        return CheckpointTokenizer.of_folder(folder)

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
