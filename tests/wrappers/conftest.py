"""Real checkpoints and builds from the user's own store, logged once a session, and the served
classes without MLflow around them.
"""

import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from steps.config.generation import GenerationConfig
from steps.config.onnx import ServingConfig
from tests.wrappers.subjects import NAME, Context, Folders, Logged, Open, folders_of


@pytest.fixture(scope="session")
def smollm() -> Folders:
    """The embedded model."""
    return folders_of("smollm2_135m")


@pytest.fixture(scope="session")
def tiny() -> Folders:
    """The tiny random model: for volume, not for answers."""
    return folders_of("tiny_phi3")


@pytest.fixture(scope="session")
def open_onnx() -> Iterator[Open]:
    """Open an ONNX folder in the served class; closed at the end."""
    from steps.wrappers.served.onnx_model import OnnxChatModel

    opened: list[Any] = []

    def open_folder(folder: Path, **config: Any) -> Any:
        model = OnnxChatModel()
        model.load_context(Context({"onnx-model": str(folder)}, {"name": NAME, **config}))
        opened.append(model)
        return model

    yield open_folder
    for model in opened:
        model.close()


@pytest.fixture(scope="session")
def open_checkpoint() -> Iterator[Open]:
    """Open a checkpoint in the served class of the transformers variant; closed at the end."""
    from steps.wrappers.served.transformers_model import TransformersChatModel

    opened: list[Any] = []

    def open_folder(folder: Path, **config: Any) -> Any:
        model = TransformersChatModel()
        model.load_context(Context({"checkpoint": str(folder)}, {"name": NAME, **config}))
        opened.append(model)
        return model

    yield open_folder
    for model in opened:
        model.close()


@pytest.fixture(scope="session")
def fp32(smollm: Folders, open_onnx: Open) -> Any:
    """The embedded model in float32: its batched answers equal its lone ones to the letter."""
    return open_onnx(smollm.onnx("fp32"))


@pytest.fixture(scope="session")
def tiny_model(tiny: Folders, open_onnx: Open) -> Any:
    """The tiny model in float32."""
    return open_onnx(tiny.onnx("fp32"))


@pytest.fixture(scope="session")
def logged(
    smollm: Folders, migrated_database: Path, tmp_path_factory: pytest.TempPathFactory
) -> Logged:
    """The embedded model in all its variants, logged in one store."""
    import mlflow

    from steps.wrappers.log_onnx import log_onnx
    from steps.wrappers.log_transformers import log_transformers

    home = tmp_path_factory.mktemp("logged")
    shutil.copy(migrated_database, home / "mlflow.db")
    store = Logged(f"sqlite:///{home / 'mlflow.db'}")
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(store.tracking_uri)
    experiment = mlflow.create_experiment("logged", artifact_location=str(home / "artifacts"))
    common: dict[str, Any] = {
        "name": NAME,
        "generation": GenerationConfig(),
        "metadata": {"licence": "Apache-2.0"},
    }
    try:
        with mlflow.start_run(experiment_id=experiment):
            for precision in ("int4", "int8", "fp32"):
                folder = smollm.onnx(precision)
                tags = {"slm.variant": "onnx", "precision": precision}
                store.uris[precision] = log_onnx(
                    folder, artifact_key="onnx-model", serving=ServingConfig(), tags=tags, **common
                )
            store.uris["transformers"] = log_transformers(
                smollm.checkpoint, tags={"slm.variant": "transformers"}, **common
            )
    finally:
        mlflow.set_tracking_uri(before)
    return store


@pytest.fixture
def in_fresh_process(logged: Logged, tmp_path: Path) -> Callable[..., str]:
    """Run Python source in a new process, in an unrelated folder, without the project on its path;
    returns what it printed.
    """

    def run(
        source: str,
        *arguments: str,
        python: str = sys.executable,
        timeout: float = 300,
        **extra: str,
    ) -> str:
        script = tmp_path / "script.py"
        script.write_text(source)
        environment = {
            key: value for key, value in logged.environment.items() if key != "PYTHONPATH"
        } | extra
        done = subprocess.run(
            [python, str(script), *arguments],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            timeout=timeout,
        )
        assert done.returncode == 0, done.stderr[-3000:]
        return done.stdout

    return run
