"""Log the model for ONNX Runtime GenAI: a prebuilt folder, or one built here, behind a
models-from-code pyfunc.

Reads: ``snapshot_uri`` (``runs:/<run>/snapshot.json``); the config nodes ``model``, ``onnx`` and
``generation``.
Writes: a logged model, ``models:/m-…``, that answers OpenAI-style chat and plain prompts, and needs
no torch.

    mlflow run . -e log_onnx_wrapper --env-manager local -P model=smollm2_135m -P onnx=int4_cpu
"""

from steps.config.root import Config
from steps.pipeline.step import StepRun, step


def _packages() -> tuple[str, ...]:
    from steps.snapshots import onnx_build
    from steps.wrappers import log_onnx

    return tuple(dict.fromkeys((*log_onnx.PACKAGES, *onnx_build.PACKAGES)))


@step(
    reads=("model.registered_name", "model.homepage", "model.artifact_key", "onnx", "generation"),
    inputs=("snapshot_uri",),
    files=("steps/wrappers/served", "steps/snapshots/provenance.py"),
    packages=_packages,
    keys=("snapshot_uri", "model.artifact_key", "onnx", "generation"),
)
def log_onnx_wrapper(config: Config, run: StepRun) -> str:
    import logging

    from steps.snapshots import onnx_build, parity
    from steps.snapshots.provenance import metadata_of, read_snapshot, tag_digest, tags_of
    from steps.snapshots.store import Store
    from steps.wrappers.capabilities import capabilities_of, in_words
    from steps.wrappers.log_onnx import log_onnx

    snapshot = read_snapshot(run.inputs["snapshot_uri"])
    store = Store(config.store.path)
    checkpoint = store.checkpoint(snapshot)
    prebuilt = store.onnx(snapshot) if config.onnx.prebuilt else None
    if prebuilt:
        folder = onnx_build.prepared(prebuilt, checkpoint, store, snapshot.digest)
    else:
        folder = onnx_build.build(checkpoint, config.onnx, store, snapshot.digest)
    parity.check(checkpoint, folder)
    capabilities = capabilities_of(folder)
    logging.getLogger(__name__).info("%s", "; ".join(in_words(capabilities)))
    uri = log_onnx(
        folder,
        name=config.model.registered_name,
        artifact_key=config.model.artifact_key,
        serving=config.onnx.serving,
        generation=config.generation,
        tags=tags_of("onnx", snapshot, run, in_words(capabilities)),
        metadata=metadata_of(config, snapshot, capabilities),
    )
    tag_digest(uri)
    return uri


if __name__ == "__main__":
    log_onnx_wrapper()
