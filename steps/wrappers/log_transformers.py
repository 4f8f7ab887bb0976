"""Logs a checkpoint as a transformers model whose python function serves the chat contract."""

import tempfile
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from steps.config.generation import GenerationConfig
from steps.config.onnx import ServingConfig
from steps.core.files import place_files
from steps.wrappers.flavor import add_chat_flavor, log_flavor, requirements
from steps.wrappers.weights import Weights, deliver

# all that serving needs
PACKAGES = (
    *("mlflow", "transformers", "torch", "accelerate", "llguidance"),
    *("jinja2", "joblib", "numpy", "pandas"),
)
WEIGHT_SUFFIXES = (".safetensors", ".bin", ".gguf", ".pt", ".pth")
PLACE = "model"  # where the transformers flavor keeps a checkpoint
TASK = "llm/v1/chat"
# What MLflow may override at load is what was logged; `execution_provider` is torch's device here.
SERVING = (
    "threads",
    "max_batch_size",
    "max_queue",
    "request_timeout",
    "neutralise_special_tokens",
    "execution_provider",
    "verify_checksums",
)


class TransformersFlavor:
    """What ``mlflow.models.Model.log`` asks of a flavor.

    MLflow's own transformers flavor is written first, so that ``mlflow.transformers.load_model``
    and the task metadata are as always; then the ``python_function`` flavor is replaced by the
    logged file, over the same weights. MLflow is shown the checkpoint without its weights, which go
    straight to where they will stay.

    Args:
        weights: the checkpoint's files.
        model_config: of the logged file.
        name: public name.
        licence: SPDX identifier, if known.
    """

    __name__ = "mlflow.transformers"

    def __init__(
        self, weights: Weights, model_config: Mapping[str, Any], name: str, licence: str | None
    ) -> None:
        self._weights, self._model_config = weights, model_config
        self._name, self._licence = name, licence

    def save_model(self, path: str, mlflow_model: Any, **_: Any) -> None:
        """Write small files into ``path`` and bring the weights straight to where they stay."""
        import mlflow.transformers

        light = tuple(name for name in self._weights.files if not name.endswith(WEIGHT_SUFFIXES))
        heavy = tuple(name for name in self._weights.files if name.endswith(WEIGHT_SUFFIXES))
        pins = requirements(PACKAGES)
        with tempfile.TemporaryDirectory() as folder:
            place_files(self._weights.folder, light, Path(folder), "logging the model")
            mlflow.transformers.save_model(
                folder,
                path,
                task=TASK,
                mlflow_model=mlflow_model,
                pip_requirements=pins,
                model_config=dict(self._model_config),
                model_card=self._card(),
            )
        # the flavor writes down the folder it was given, which is private to this machine and soon
        # gone
        mlflow_model.flavors["transformers"]["source_model_name"] = self._name
        (Path(path) / "LICENSE.txt").write_text(
            f"Licence of the weights: {self._licence or 'not stated by their source'}\n", "utf-8"
        )
        add_chat_flavor(
            mlflow_model,
            Path(path),
            variant="transformers",
            weights_key="checkpoint",
            weights_place=PLACE,
            checksums=self._weights.checksums(),
            size=self._weights.size,
            model_config=self._model_config,
            pip_requirements=pins,
        )
        deliver(Weights(self._weights.folder, heavy, PLACE), mlflow_model.artifact_path)

    def _card(self) -> Any:
        from huggingface_hub import ModelCard

        readme = self._weights.folder / "README.md"
        text = (
            readme.read_text("utf-8")
            if readme.is_file()
            else f"---\nlicense: {self._licence or 'other'}\n---\n\n# {self._name}\n"
        )
        return ModelCard(text, ignore_metadata_errors=True)


def log_transformers(
    checkpoint: Path,
    *,
    name: str,
    generation: GenerationConfig,
    tags: Mapping[str, str],
    metadata: Mapping[str, Any],
) -> str:
    """Log a checkpoint folder in the active run; its weights are not loaded.

    Args:
        checkpoint: holds config.json, the tokenizer and safetensors.
        name: public name of the model, shown in completions.
        generation: defaults of an answer.
        tags: set on the LoggedModel.
        metadata: written into its MLmodel file; ``licence`` is shown in the model card.

    Returns:
        The logged model's URI, ``models:/m-…``.

    Raises:
        FileNotFoundError: ``checkpoint`` holds no config.json.
        OSError: not enough disk space.
    """
    if not (checkpoint / "config.json").is_file():
        raise FileNotFoundError(
            f"{checkpoint / 'config.json'}: expected a checkpoint folder as save_pretrained"
            " writes it"
        )
    licence = metadata.get("licence")
    serving = {key: value for key, value in asdict(ServingConfig()).items() if key in SERVING}
    config = {"name": name, **asdict(generation), **serving}
    flavor = TransformersFlavor(
        Weights.all_in(checkpoint, PLACE), config, name, str(licence) if licence else None
    )
    return log_flavor(flavor, f"{name}-transformers", tags, metadata)
