"""The ONNX variant: onnxruntime-genai and the checkpoint's tokenizer, without torch."""

from pathlib import Path

from .backend import Backend
from .limits import Limits, limits_of_onnx
from .model import ServedModel
from .onnx_backend import OnnxBackend
from .tokenizer import CheckpointTokenizer


class OnnxChatModel(ServedModel):
    """Serves an ONNX Runtime GenAI folder."""

    def make_tokenizer(self, folder: Path) -> CheckpointTokenizer:
        """Read the folder's tokenizer."""
        return CheckpointTokenizer.of_folder(folder)

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
