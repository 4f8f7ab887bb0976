"""A store of hand-written models, logged once a session."""

import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

CLERK = Path(__file__).with_name("models") / "clerk.py"


@pytest.fixture(scope="session")
def scoring_store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A tracking store of this room's own."""
    import mlflow

    folder = tmp_path_factory.mktemp("scoring-store")
    uri = f"sqlite:///{folder}/mlflow.db"
    before = mlflow.get_tracking_uri(), mlflow.get_registry_uri()
    mlflow.set_tracking_uri(uri)
    mlflow.set_registry_uri(uri)
    mlflow.create_experiment("scoring", artifact_location=(folder / "artifacts").as_uri())
    yield uri
    mlflow.set_tracking_uri(before[0])
    mlflow.set_registry_uri(before[1])
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def clerk(scoring_store: str) -> Callable[[str], str]:
    """Log the hand-written model in a mood and give its URI; each mood is logged once."""
    import mlflow
    from mlflow.models import ModelSignature
    from mlflow.types.llm import CHAT_MODEL_INPUT_SCHEMA
    from mlflow.types.schema import AnyType, ColSpec, Schema

    known: dict[str, str] = {}
    extra = [
        ColSpec(name=name, type=kind, required=False)
        for name, kind in (("top_k", "long"), ("seed", "long"))
    ]
    extra.append(ColSpec(name="response_format", type=AnyType(), required=False))
    names = {column.name for column in extra}
    columns = [column for column in CHAT_MODEL_INPUT_SCHEMA.inputs if column.name not in names]
    signature = ModelSignature(inputs=Schema([*columns, *extra]))

    def log(mood: str) -> str:
        if mood not in known:
            mlflow.set_tracking_uri(scoring_store)
            mlflow.set_experiment("scoring")
            with mlflow.start_run(run_name=f"clerk {mood}"):
                info = mlflow.pyfunc.log_model(
                    name="clerk",
                    python_model=str(CLERK),
                    model_config={"mood": mood},
                    signature=signature,
                    pip_requirements=["mlflow"],
                    streamable=True,
                )
            client = mlflow.MlflowClient()
            client.set_logged_model_tags(
                info.model_id,
                {
                    "slm.variant": "transformers" if mood == "good" else "onnx",
                    "slm.licence": "MIT",
                    "slm.digest": "sha256:" + format(hash(mood) % 16**64, "064x"),
                },
            )
            known[mood] = f"models:/{info.model_id}"
        return known[mood]

    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    return log


@dataclass(frozen=True)
class Weights:
    """A checkpoint and an ONNX build of it; read-only."""

    checkpoint: Path
    onnx: Path


def weights_of(model: str, onnx: str) -> Weights:
    """Fetch a model into the user's store and build it there; both are made once and kept."""
    from steps.pipeline.compose import compose_config
    from steps.snapshots import onnx_build
    from steps.snapshots.fetch import fetch
    from steps.snapshots.store import Store

    config = compose_config([f"model={model}", f"onnx={onnx}"])
    store = Store()
    snapshot = fetch(config.model, store)
    checkpoint = store.checkpoint(snapshot)
    return Weights(checkpoint, onnx_build.build(checkpoint, config.onnx, store, snapshot.digest))


@pytest.fixture(scope="session")
def tiny_fp32() -> Weights:
    """The tiny random model and its float32 build."""
    return weights_of("tiny_phi3", "fp32_cpu")
