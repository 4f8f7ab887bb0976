"""What the server's tests share: a registry of real versions, and a server for those that ask."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.serving.servers import NAME, Serving, serving

SMALL_PREFIX_CACHE = 30_000_000  # bytes: full after some requests

WEB = "https://chat.example.com"  # whose pages may ask the server


@pytest.fixture
def anyio_backend() -> str:
    """Asynchronous tests run on asyncio, as uvicorn does."""
    return "asyncio"


@pytest.fixture(scope="session")
def versions(migrated_database: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tracking database and four versions of one registered model: the embedded
    model's ONNX build, its transformers variant, the build with a smaller prefix cache, and one
    whose bytes are not those of its tag.
    """
    import mlflow

    from steps.config.generation import GenerationConfig
    from steps.config.onnx import ServingConfig
    from steps.core import digest
    from steps.wrappers.log_onnx import log_onnx
    from steps.wrappers.log_transformers import log_transformers
    from tests.wrappers.subjects import folders_of

    home = tmp_path_factory.mktemp("versions")
    shutil.copy(migrated_database, home / "mlflow.db")
    uri = f"sqlite:///{home / 'mlflow.db'}"
    folders = folders_of("smollm2_135m")
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(uri)
    mlflow.set_registry_uri(uri)
    common: dict[str, Any] = {"name": NAME, "generation": GenerationConfig(), "metadata": {}}
    build: dict[str, Any] = {
        **common,
        "artifact_key": "onnx-model",
        "serving": ServingConfig(),
        "tags": {"slm.variant": "onnx"},
    }
    small = ServingConfig(prefix_cache_bytes=SMALL_PREFIX_CACHE)
    client = mlflow.MlflowClient()
    try:
        experiment = mlflow.create_experiment("served", artifact_location=str(home / "artifacts"))
        with mlflow.start_run(experiment_id=experiment):
            logged = [
                log_onnx(folders.shipped(), **build),
                log_transformers(
                    folders.checkpoint, tags={"slm.variant": "transformers"}, **common
                ),
                log_onnx(folders.shipped(), **{**build, "serving": small}),
                log_onnx(folders.shipped(), **build),
            ]
        client.create_registered_model(NAME)
        for number, model in enumerate(logged, 1):
            folder = Path(mlflow.artifacts.download_artifacts(model))
            found = digest.of_folder(folder)
            tags = {"slm.variant": "transformers" if number == 2 else "onnx"}
            tags["slm.digest"] = found if number < len(logged) else f"sha256:{'0' * 64}"
            client.create_model_version(NAME, model, tags=tags, model_id=model.split("/")[-1])
        client.set_registered_model_alias(NAME, "champion", "1")
    finally:
        mlflow.set_tracking_uri(before)
        mlflow.set_registry_uri(before)
    return home


@pytest.fixture
def registry(versions: Path, tmp_path: Path) -> str:
    """URI of a registry of the test's own, with the same versions."""
    shutil.copy(versions / "mlflow.db", tmp_path / "mlflow.db")
    return f"sqlite:///{tmp_path / 'mlflow.db'}"


@pytest.fixture(scope="session")
def server(versions: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    """A server of the ONNX version that tests only ask."""
    folder = tmp_path_factory.mktemp("server")
    shutil.copy(versions / "mlflow.db", folder / "mlflow.db")
    web = f"serve.cors_origins=[{WEB}]"
    with serving(folder, f"sqlite:///{folder / 'mlflow.db'}", web) as running:
        yield running
