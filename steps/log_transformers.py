"""Log the checkpoint with MLflow's transformers flavor, task ``llm/v1/chat``.

Reads: ``snapshot_uri`` (``runs:/<run>/snapshot.json``); the config nodes ``model`` and
``generation``.
Writes: a logged model, ``models:/m-…``, that answers OpenAI-style chat.

    mlflow run . -e log_transformers --env-manager local -P model=smollm2_135m
"""

from steps.config.root import Config
from steps.pipeline.step import StepRun, step


def _packages() -> tuple[str, ...]:
    from steps.wrappers.log_transformers import PACKAGES

    return PACKAGES


@step(
    reads=("model.registered_name", "model.homepage", "generation"),
    inputs=("snapshot_uri",),
    files=("steps/wrappers/served", "steps/snapshots/provenance.py", "steps/config/onnx.py"),
    packages=_packages,
)
def log_transformers(config: Config, run: StepRun) -> str:
    import logging

    from steps.snapshots import parity
    from steps.snapshots.provenance import metadata_of, read_snapshot, tag_digest, tags_of
    from steps.snapshots.store import Store
    from steps.wrappers.capabilities import capabilities_of, in_words
    from steps.wrappers.log_transformers import log_transformers as log_model

    snapshot = read_snapshot(run.inputs["snapshot_uri"])
    checkpoint = Store(config.store.path).checkpoint(snapshot)
    parity.check(checkpoint, checkpoint)
    capabilities = capabilities_of(checkpoint)
    logging.getLogger(__name__).info("%s", "; ".join(in_words(capabilities)))
    uri = log_model(
        checkpoint,
        name=config.model.registered_name,
        generation=config.generation,
        tags=tags_of("transformers", snapshot, run, in_words(capabilities)),
        metadata=metadata_of(config, snapshot, capabilities),
    )
    tag_digest(uri)
    return uri


if __name__ == "__main__":
    log_transformers()
