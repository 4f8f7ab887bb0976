"""Log the checkpoint with MLflow's transformers flavor, task ``llm/v1/chat``.

Reads: ``snapshot_uri`` (``runs:/<run>/snapshot.json``); the config nodes ``model`` and ``generation``.
Writes: a logged model, ``models:/m-…``, that answers OpenAI-style chat.

    mlflow run . -e log_transformers --env-manager local -P model=smollm2_135m
"""

from steps.config.root import Config
from steps.pipeline.step import StepRun, step
from steps.snapshots.store import Store
from steps.wrappers.log_transformers import PACKAGES
from steps.wrappers.log_transformers import log_transformers as log_model


@step(
    reads=("model.registered_name", "model.homepage", "generation"),
    inputs=("snapshot_uri",),
    files=("steps/wrappers/served", "steps/pipeline/logged_model.py", "steps/config/onnx.py"),
    packages=PACKAGES,
)
def log_transformers(config: Config, run: StepRun) -> str:
    from steps.pipeline.handoff import read_snapshot
    from steps.pipeline.logged_model import metadata_of, tag_digest, tags_of

    snapshot = read_snapshot(run.inputs["snapshot_uri"])
    uri = log_model(
        Store(config.store.path).checkpoint(snapshot),
        name=config.model.registered_name,
        generation=config.generation,
        tags=tags_of("transformers", snapshot, run),
        metadata=metadata_of(config, snapshot),
    )
    tag_digest(uri)
    return uri


if __name__ == "__main__":
    log_transformers()
