"""The transformers variant: the same contract over the checkpoint that was logged."""

from pathlib import Path

from .backend import Backend
from .limits import Limits, limits_of_checkpoint
from .model import ServedModel
from .tokenizer import CheckpointTokenizer
from .transformers_backend import TransformersBackend


class TransformersChatModel(ServedModel):
    """Serves a checkpoint folder."""

    def make_tokenizer(self, folder: Path) -> CheckpointTokenizer:
        """Read the tokenizer as transformers does, with tokens that other files add."""
        from transformers import AutoTokenizer

        return CheckpointTokenizer(AutoTokenizer.from_pretrained(str(folder)).backend_tokenizer)

    def make_backend(self) -> Backend:
        """Load the folder's weights."""
        settings = self.settings
        assert self.folder is not None
        return TransformersBackend(
            self.folder,
            limits=self.limits,
            threads=settings.intra_op_threads,
            device=settings.execution_provider or "cpu",
            max_batch_size=settings.max_batch_size,
            matchers=self.matchers,
        )

    def read_limits(self, folder: Path) -> Limits:
        """Read them from the checkpoint's JSON files."""
        return limits_of_checkpoint(folder)
