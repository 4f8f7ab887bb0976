"""Fetch a model's weights into the local store and describe them.

Reads: the config group ``model/``.
Writes: ``snapshot.json`` on its run: repository, revision, licence, and the size and sha256 of every file.

    mlflow run . -e fetch_model --env-manager local -P model=smollm2_135m
"""

from steps.config.model import Source
from steps.config.root import Config
from steps.pipeline.step import StepRun, step
from steps.snapshots.fetch import fetch
from steps.snapshots.hub import repositories
from steps.snapshots.store import Store


def _still_here(config: Config, uri: str) -> bool:
    """Whether the same fetch would give the same bytes, and this machine still has them."""
    from steps.pipeline.handoff import read_snapshot

    moving = any(not repository.pinned for repository in repositories(config.model))
    if config.model.source is Source.folder or moving:  # a folder may have changed and a branch may have moved since
        return False
    snapshot = read_snapshot(uri)
    return not Store(config.store.path).damaged((*snapshot.files, *snapshot.onnx_files))


@step(reads=("model",), packages=("transformers", "huggingface-hub", "gguf"), still_valid=_still_here)
def fetch_model(config: Config, run: StepRun) -> str:
    import mlflow

    snapshot = fetch(config.model, Store(config.store.path))
    mlflow.log_text(snapshot.to_json(), "snapshot.json")
    mlflow.set_tag("slm.snapshot_revision", snapshot.revision)
    return f"runs:/{run.run_id}/snapshot.json"


if __name__ == "__main__":
    fetch_model()
