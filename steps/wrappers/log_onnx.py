"""Logs an ONNX Runtime GenAI folder as an MLflow model that serves prompts and chats."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from steps.config.generation import GenerationConfig
from steps.config.onnx import ServingConfig
from steps.wrappers.flavor import add_chat_flavor, log_flavor, requirements
from steps.wrappers.weights import Weights, deliver

# all that serving needs; no torch
PACKAGES = (
    "mlflow",
    "onnxruntime-genai",
    "onnxruntime",
    "tokenizers",
    "llguidance",
    "numpy",
    "pandas",
    "jinja2",
    "joblib",
)


class OnnxFlavor:
    """What ``mlflow.models.Model.log`` asks of a flavor.

    Args:
        weights: the ONNX folder's files.
        key: name of the folder among the artifacts.
        model_config: of the logged file.
    """

    __name__ = "mlflow.pyfunc"

    def __init__(self, weights: Weights, key: str, model_config: Mapping[str, Any]) -> None:
        self._weights, self._key, self._model_config = weights, key, model_config

    def save_model(self, path: str, mlflow_model: Any, **_: Any) -> None:
        """Write small files into ``path`` and bring the weights straight to where they stay."""
        add_chat_flavor(
            mlflow_model,
            Path(path),
            variant="onnx",
            weights_key=self._key,
            weights_place=self._weights.place,
            checksums=self._weights.checksums(),
            size=self._weights.size,
            model_config=self._model_config,
            pip_requirements=requirements(PACKAGES),
        )
        deliver(self._weights, mlflow_model.artifact_path)


def log_onnx(
    onnx_dir: Path,
    *,
    name: str,
    artifact_key: str,
    serving: ServingConfig,
    generation: GenerationConfig,
    tags: Mapping[str, str],
    metadata: Mapping[str, Any],
) -> str:
    """Log an ONNX folder in the active run.

    Args:
        onnx_dir: holds genai_config.json, the model and its tokenizer.
        name: public name of the model, shown in completions.
        artifact_key: name of the folder among the artifacts.
        serving: defaults of the engine.
        generation: defaults of an answer.
        tags: set on the LoggedModel.
        metadata: written into its MLmodel file.

    Returns:
        The logged model's URI, ``models:/m-…``.

    Raises:
        FileNotFoundError: ``onnx_dir`` holds no genai_config.json.
        OSError: not enough disk space.
    """
    if not (onnx_dir / "genai_config.json").is_file():
        raise FileNotFoundError(
            f"{onnx_dir / 'genai_config.json'}: expected a folder built by"
            " onnxruntime_genai.models.builder"
        )
    weights = Weights.all_in(onnx_dir, f"artifacts/{artifact_key}")
    config = {"name": name, **asdict(generation), **asdict(serving)}
    flavor = OnnxFlavor(weights, artifact_key, config)
    return log_flavor(flavor, f"{name}-onnx", tags, metadata)
