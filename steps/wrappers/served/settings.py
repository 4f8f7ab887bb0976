"""The ``model_config`` of a logged model, and its files against their checksums."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import DATA_LOSS

from .invalid_request import invalid_request

EXPECTED = {
    "name": "a name that is not empty",
    "temperature": "a number from 0 to 2",
    "execution_provider": "a provider such as 'cuda', or null",
    "provider_options": "a mapping, or null",
    "chat_template_kwargs": "a mapping, or null",
}


@dataclass(frozen=True)
class Settings:
    """The ``model_config`` of a logged model; every key that it was logged with may be overridden
    when it is loaded.
    """

    name: str = "model"  # public name, shown as `model` in completions
    max_new_tokens: int = 256  # tokens of an answer that does not say otherwise
    temperature: float = 0.0
    # what the chat template is given where a request does not say otherwise
    chat_template_kwargs: Mapping[str, Any] | None = None
    threads: int = 0  # intra-op threads; 0 takes every core this process may use
    max_batch_size: int = 8  # answers generated side by side
    max_queue: int = 256  # answers that may wait; one more is refused
    # seconds; behind MLflow's scoring server at most MLFLOW_SCORING_SERVER_REQUEST_TIMEOUT
    request_timeout: float = 600.0
    prefix_cache_bytes: int = 268_435_456  # KV cache kept across turns; 0 switches reuse off
    neutralise_special_tokens: bool = True  # special-token text in messages is taken as plain text
    execution_provider: str | None = None  # null is what the folder was built for
    provider_options: Mapping[str, str] | None = None
    verify_checksums: bool = True  # read every file at load and compare it with what was logged

    @property
    def intra_op_threads(self) -> int:
        """Threads a model computes with: as set, else the cores this process may use.

        That is joblib's count: the machine's physical cores, or, where affinity or a container's
        limit leaves fewer processors than the machine has, those processors.

        onnxruntime-genai itself would take half of what the machine shows: half of the cores where
        there is no hyper-threading, and more than a container's share.
        """
        if self.threads:
            return self.threads
        from joblib import cpu_count

        return int(cpu_count(only_physical_cores=True))

    @classmethod
    def read(cls, config: Mapping[str, Any] | None) -> "Settings":
        """Check a model_config.

        MLflow has dropped overrides of keys that the model was not logged with before this sees
        them, with a warning; an unknown key that was logged is refused.

        Raises:
            MlflowException: an unknown key, a value of the wrong type or out of range, or options
                that nothing would read.
        """
        given = dict(config or {})
        known = {field.name: field for field in fields(cls)}
        for key, value in given.items():
            if key not in known:
                raise invalid_request(
                    f"model_config.{key}", value, f"one of the keys {sorted(known)}"
                )
            default = known[key].default
            if isinstance(default, bool):
                fits = isinstance(value, bool)
            elif isinstance(default, int):
                fits = (
                    isinstance(value, int)
                    and not isinstance(value, bool)
                    and value >= (0 if key in ("threads", "prefix_cache_bytes") else 1)
                )
            elif isinstance(default, float):
                fits = (
                    isinstance(value, int | float)
                    and not isinstance(value, bool)
                    and (0 <= value <= 2 if key == "temperature" else value > 0)
                )
            elif key in ("provider_options", "chat_template_kwargs"):
                fits = value is None or isinstance(value, Mapping)
            else:
                fits = bool(value) if isinstance(value, str) else value is None and key != "name"
            if not fits:
                raise invalid_request(
                    f"model_config.{key}", value, EXPECTED.get(key, f"a value such as {default!r}")
                )
        settings = cls(**given)
        if settings.provider_options and settings.execution_provider in (None, "cpu"):
            expected = "none without an execution provider other than cpu"
            cure = "name the provider that they are for in model_config.execution_provider"
            raise invalid_request(
                "model_config.provider_options", settings.provider_options, expected, cure
            )
        return settings


def verify(folder: Path, checksums: Mapping[str, str]) -> None:
    """Compare every file with the sha256 it was logged with.

    Raises:
        MlflowException: naming the first file that is missing or differs.
    """
    for name, expected in sorted(checksums.items()):
        file = folder / name
        if not file.exists():
            raise MlflowException(
                f"damaged model: {name} is missing; log it again or fetch the artifacts anew",
                error_code=DATA_LOSS,
            )
        with file.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
        if digest != expected:
            raise MlflowException(
                f"damaged model: {name} has sha256 {digest}, logged was {expected}; fetch the"
                " artifacts anew",
                error_code=DATA_LOSS,
            )
