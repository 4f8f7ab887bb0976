"""Fetch a model's weights into the local store and describe them.

Reads: the config group ``model/``.
Writes: ``snapshot.json`` on its run: repository, revision, licence, and the size and sha256 of
every file.

    mlflow run . -e fetch_model --env-manager local -P model=smollm2_135m
"""

from steps.config.root import Config
from steps.pipeline.step import StepRun, step


def _stale(config: Config, uri: str) -> str | None:
    """Why the same fetch would not give the same bytes, or this machine has them no longer."""
    from steps.snapshots.freshness import stale
    from steps.snapshots.provenance import read_snapshot
    from steps.snapshots.store import Store

    return stale(config.model, read_snapshot(uri), Store(config.store.path))


def _digest(uri: str) -> str:
    from steps.snapshots.provenance import snapshot_digest

    return snapshot_digest(uri)


@step(
    reads=("model",),
    packages=("transformers", "huggingface-hub", "gguf"),
    stale=_stale,
    output_digest=_digest,
)
def fetch_model(config: Config, run: StepRun) -> str:
    import mlflow

    from steps.core import tags
    from steps.snapshots.fetch import fetch
    from steps.snapshots.store import Store

    snapshot = fetch(config.model, Store(config.store.path))
    mlflow.log_text(snapshot.to_json(), "snapshot.json")
    mlflow.set_tag(tags.SNAPSHOT_REVISION, snapshot.revision)
    return f"runs:/{run.run_id}/snapshot.json"


if __name__ == "__main__":
    fetch_model()
