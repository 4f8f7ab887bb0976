"""A repository of the Hugging Face Hub."""

from steps.config.model import ModelConfig
from steps.snapshots.manifest import Snapshot
from steps.snapshots.store import Store


def fetch(model: ModelConfig, store: Store, key: str) -> Snapshot:
    """Snapshot of a Hub repository."""
    raise NotImplementedError
