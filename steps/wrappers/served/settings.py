"""The ``model_config`` of a logged model."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from .invalid_request import invalid_request


def _setting(default: Any, expected: str, fits: Callable[[Any], bool]) -> Any:
    """A field with its bounds, in words and as a check."""
    return field(default=default, metadata={"expected": expected, "fits": fits})


def _integer(default: int, least: int) -> Any:
    return _setting(
        default, f"an integer of at least {least}", lambda value: _is(value, int) and value >= least
    )


def _flag(default: bool) -> Any:
    return _setting(default, "true or false", lambda value: isinstance(value, bool))


def _mapping() -> Any:
    return _setting(
        None, "a mapping, or null", lambda value: value is None or isinstance(value, Mapping)
    )


def _is(value: Any, kind: Any) -> bool:
    return isinstance(value, kind) and not isinstance(value, bool)


@dataclass(frozen=True)
class Settings:
    """The ``model_config`` of a logged model; every key that it was logged with may be overridden
    when it is loaded.

    ``GenerationConfig`` and ``ServingConfig`` of the project's config have the same fields, but for
    the name; a test holds them together.
    """

    # public name, shown as `model` in completions
    name: str = _setting(
        "model", "a name that is not empty", lambda value: isinstance(value, str) and bool(value)
    )
    max_new_tokens: int = _integer(256, 1)  # tokens of an answer that does not say otherwise
    temperature: float = _setting(
        0.0, "a number from 0 to 2", lambda value: _is(value, int | float) and 0 <= value <= 2
    )
    # what the chat template is given where a request does not say otherwise
    chat_template_kwargs: Mapping[str, Any] | None = _mapping()
    threads: int = _integer(0, 0)  # intra-op threads; 0 takes every core this process may use
    max_batch_size: int = _integer(8, 1)  # answers generated side by side
    max_queue: int = _integer(256, 1)  # answers that may wait; one more is refused
    # seconds from when a request arrives; behind MLflow's scoring server at most
    # MLFLOW_SCORING_SERVER_REQUEST_TIMEOUT
    request_timeout: float = _setting(
        600.0, "seconds above 0", lambda value: _is(value, int | float) and value > 0
    )
    prefix_cache_bytes: int = _integer(268_435_456, 0)  # KV cache kept across turns; 0: no reuse
    neutralise_special_tokens: bool = _flag(True)  # such text in messages is taken as plain text
    # keys and values of answers on their way, in bytes: fewer run side by side when theirs are long
    kv_cache_bytes: int = _integer(4_294_967_296, 1)
    # 'onnxruntime' computes rows that join and leave a batch, 'onnxruntime-genai' any graph on any
    # provider; null is the first wherever the graph and the provider allow it
    engine: str | None = _setting(
        None,
        "'onnxruntime', 'onnxruntime-genai', or null",
        lambda value: value in (None, "onnxruntime", "onnxruntime-genai"),
    )
    # null is what the folder was built for
    execution_provider: str | None = _setting(
        None,
        "a provider such as 'cuda', or null",
        lambda value: value is None or (isinstance(value, str) and bool(value)),
    )
    provider_options: Mapping[str, str] | None = _mapping()
    verify_checksums: bool = _flag(True)  # read every file at load, compare with what was logged

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
        known = {setting.name: setting for setting in fields(cls)}
        for key, value in given.items():
            if key not in known:
                raise invalid_request(
                    f"model_config.{key}", value, f"one of the keys {sorted(known)}"
                )
            if not known[key].metadata["fits"](value):
                raise invalid_request(f"model_config.{key}", value, known[key].metadata["expected"])
        settings = cls(**given)
        if settings.provider_options and settings.execution_provider in (None, "cpu"):
            expected = "none without an execution provider other than cpu"
            cure = "name the provider that they are for in model_config.execution_provider"
            raise invalid_request(
                "model_config.provider_options", settings.provider_options, expected, cure
            )
        return settings
