"""Schema of the group ``onnx/``: how the ONNX Runtime GenAI folder is built and served."""

from dataclasses import dataclass, field
from enum import Enum

from steps.config.errors import ConfigError


class Precision(Enum):
    """Precision of the weights, as the model builder names it."""

    int4 = "int4"
    int8 = "int8"
    fp16 = "fp16"
    fp32 = "fp32"


class ExecutionProvider(Enum):
    """ONNX Runtime execution provider, as the model builder names it."""

    cpu = "cpu"
    cuda = "cuda"
    dml = "dml"
    webgpu = "webgpu"


@dataclass
class ServingConfig:
    """Defaults of the logged wrapper; each is a ``model_config`` key that may be overridden at load time."""

    threads: int = 0  # intra-op threads; 0 leaves the choice to ONNX Runtime
    max_batch_size: int = 8  # requests decoded together
    max_queue: int = 256  # requests that may wait; one more is refused
    request_timeout: float = 600.0  # seconds
    prefix_cache_bytes: int = 268_435_456  # KV cache kept across turns, in bytes; 0 switches reuse off
    neutralise_special_tokens: bool = True  # special-token text in messages is taken as plain text
    execution_provider: str | None = None  # cpu, cuda, dml, …; null is what the folder was built for
    provider_options: dict[str, str] = field(default_factory=dict)  # options of that execution provider
    verify_checksums: bool = True  # compare every file with its logged sha256 when the model is loaded

    def __post_init__(self) -> None:
        for name, least in (("threads", 0), ("max_batch_size", 1), ("max_queue", 1), ("prefix_cache_bytes", 0)):
            if getattr(self, name) < least:
                raise ConfigError(f"onnx.serving.{name}", getattr(self, name), f"an integer of at least {least}")
        if self.request_timeout <= 0:
            raise ConfigError("onnx.serving.request_timeout", self.request_timeout, "seconds above 0")


@dataclass
class OnnxConfig:
    """One ONNX build."""

    precision: Precision = Precision.int4
    execution_provider: ExecutionProvider = ExecutionProvider.cpu
    extra_options: dict[str, str] = field(default_factory=dict)  # --extra_options of onnxruntime_genai.models.builder
    prebuilt: bool = True  # take the model's prebuilt folder (model.onnx) when it names one
    serving: ServingConfig = field(default_factory=ServingConfig)
