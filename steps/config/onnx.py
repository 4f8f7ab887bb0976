"""Schema of the group ``onnx/``: how the ONNX Runtime GenAI folder is built and served."""

from dataclasses import dataclass, field
from enum import Enum

from steps.config import bounds
from steps.config.bounds import above, at_least, bounded
from steps.core.errors import ConfigError


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


# Combinations that the model builder names as valid, and its options that shape a text model on
# these providers. It takes any other name without a word and builds as if it were not there; and
# some do not belong into a config: tokens, code from a hub, half models.
PRECISIONS = {
    ExecutionProvider.cpu: {Precision.fp32, Precision.int8, Precision.int4},
    ExecutionProvider.cuda: {Precision.fp32, Precision.fp16, Precision.int8, Precision.int4},
    ExecutionProvider.dml: {Precision.fp16, Precision.int4},
    ExecutionProvider.webgpu: {Precision.int8, Precision.int4},
}
QUANTISATION_OPTIONS = {
    "accuracy_level", "algo_config", "block_size", "is_symmetric", "matmul_mixed_precision",
    "nodes_to_exclude", "op_types_to_quantize", "use_qdq",
}  # fmt: skip
GRAPH_OPTIONS = {
    "enable_cuda_graph", "enable_dml_graph", "enable_webgpu_graph", "fuse_qk_norm_gqa",
    "fuse_qkv", "matmulnbits_weights_prepacked", "moe_quant_type", "prune_lm_head",
    "qmoe_block_size", "shared_embeddings", "use_cuda_bf16", "use_webgpu_fp32",
    "windowed_kv_cache",
}  # fmt: skip


@dataclass
class ServingConfig:
    """Defaults of the logged wrapper; each is a ``model_config`` key that may be overridden at load
    time.
    """

    # intra-op threads; 0 takes every core the process may use
    threads: int = bounded(0, at_least(0))
    max_batch_size: int = bounded(8, at_least(1))  # requests decoded together
    max_queue: int = bounded(256, at_least(1))  # requests that may wait; one more is refused
    # seconds that a request may take from when it arrives
    request_timeout: float = bounded(600.0, above(0, "seconds"))
    # KV cache kept across turns, in bytes; 0 switches reuse off
    prefix_cache_bytes: int = bounded(268_435_456, at_least(0))
    # KV cache of answers on their way, in bytes: fewer run side by side when theirs are long
    kv_cache_bytes: int = bounded(4_294_967_296, at_least(1))
    # onnxruntime (rows join and leave a batch), onnxruntime-genai, or null: the first where it can
    engine: str | None = None
    neutralise_special_tokens: bool = True  # special-token text in messages is taken as plain text
    # cpu, cuda, dml, …; null is what the folder was built for
    execution_provider: str | None = None
    # options of that execution provider
    provider_options: dict[str, str] = field(default_factory=dict)
    # compare every file with its logged sha256 when the model is loaded
    verify_checksums: bool = True

    def __post_init__(self) -> None:
        bounds.check(self, "onnx.serving")


@dataclass
class OnnxConfig:
    """One ONNX build."""

    precision: Precision = Precision.int4  # of the weights
    execution_provider: ExecutionProvider = ExecutionProvider.cpu  # what runs the graph
    # --extra_options of onnxruntime_genai.models.builder
    extra_options: dict[str, str] = field(default_factory=dict)
    prebuilt: bool = True  # take the model's prebuilt folder (model.onnx) when it names one
    serving: ServingConfig = field(default_factory=ServingConfig)

    def __post_init__(self) -> None:
        valid = PRECISIONS[self.execution_provider]
        if self.precision not in valid:
            names = ", ".join(sorted(precision.value for precision in valid))
            raise ConfigError(
                "onnx.precision",
                self.precision.value,
                f"one of {names} for onnx.execution_provider={self.execution_provider.value}",
            )
        quantised = self.precision in (Precision.int4, Precision.int8)
        known = GRAPH_OPTIONS | (QUANTISATION_OPTIONS if quantised else set())
        for name, value in self.extra_options.items():
            if name not in known:
                plain = name.removeprefix("int4_")
                cure = (
                    f"write {plain}: the prefix was dropped"
                    if plain != name and plain in known
                    else None
                )
                if name in QUANTISATION_OPTIONS:
                    cure = f"it quantises, and onnx.precision={self.precision.value} does not"
                shown = "…" if "token" in name else value  # the message goes to logs
                raise ConfigError(
                    f"onnx.extra_options.{name}",
                    shown,
                    f"one of the builder's options {', '.join(sorted(known))}",
                    cure,
                )
