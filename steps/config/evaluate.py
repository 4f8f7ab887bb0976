"""Schema of the group ``evaluate/``: on what, and how long, a candidate is judged."""

from dataclasses import dataclass, field

from steps.config.isolation import Isolation
from steps.core.errors import ConfigError


@dataclass
class FidelityConfig:
    """Teacher-forced comparison of a converted variant with its checkpoint."""

    enabled: bool = True
    # tokens compared, taken in turn from each text; the shipped texts hold a little over 21,000
    tokens: int = 2176
    # tokens scored in one forward pass: bounds memory at window * vocabulary * 4 bytes
    window: int = 128
    texts: str | None = None  # folder of *.txt files to take instead of the shipped ones
    continuations: int = 4  # prompts continued greedily by both, to find the first divergence
    continuation_tokens: int = 32  # tokens a continuation may have

    def __post_init__(self) -> None:
        if self.window < 16:
            raise ConfigError("evaluate.fidelity.window", self.window, "an integer of at least 16")
        if self.tokens < self.window:
            raise ConfigError(
                "evaluate.fidelity.tokens",
                self.tokens,
                f"at least one window ({self.window} tokens)",
            )
        for name, least in (("continuations", 0), ("continuation_tokens", 1)):
            if getattr(self, name) < least:
                raise ConfigError(
                    f"evaluate.fidelity.{name}",
                    getattr(self, name),
                    f"an integer of at least {least}",
                )


@dataclass
class SpeedConfig:
    """Timings, taken on the loaded model and never through tracing."""

    enabled: bool = True
    warmup: int = 1  # untimed requests before the rounds, each prompt length
    rounds: int = 3  # timed rounds, interleaved across the candidates
    new_tokens: int = 32  # tokens each timed answer has
    # short and long prompt, in tokens of roughly 4 characters
    prompt_tokens: list[int] = field(default_factory=lambda: [32, 384])
    concurrency: list[int] = field(default_factory=lambda: [1, 4, 8])  # requests at once
    burst_tokens: int = 16  # tokens each answer of a burst has

    def __post_init__(self) -> None:
        for name, least in (("warmup", 0), ("rounds", 1), ("new_tokens", 2), ("burst_tokens", 1)):
            if getattr(self, name) < least:
                raise ConfigError(
                    f"evaluate.speed.{name}", getattr(self, name), f"an integer of at least {least}"
                )
        for name in ("prompt_tokens", "concurrency"):
            if any(value < 1 for value in getattr(self, name)):
                raise ConfigError(
                    f"evaluate.speed.{name}", getattr(self, name), "integers of at least 1"
                )


@dataclass
class EvaluateConfig:
    """How the candidates are judged."""

    pack: str = "smoke"  # a shipped pack's name, or any folder with pack.yaml and items.jsonl
    # items taken from the pack, spread over its skills; null takes all
    max_items: int | None = None
    max_new_tokens: int = 64  # tokens an answer may have where the item does not say
    # further tokens that a model which reasons first may use for that; what follows is scored
    reasoning_tokens: int = 256
    seed: int = 0
    # model URIs; empty takes the two that this chain logged
    candidates: list[str] = field(default_factory=list)
    incumbent: bool = True  # judge the registry's champion too, where there is one
    conformance: bool = True  # the chat contract, row by row
    traces: bool = True  # every answer becomes a trace with its assessments
    candidate_timeout: float = 3600.0  # seconds one candidate may take before it counts as hung
    # seconds one request may take before the candidate counts as hung
    request_timeout: float = 600.0
    # resident bytes one candidate may hold; null sets no limit
    memory_limit_bytes: int | None = None
    # required: no candidate is loaded unless it can be kept from network, processes, files
    isolation: Isolation = Isolation.preferred
    resume: bool = True  # take answers that an interrupted evaluation of the same bytes already has
    # lm-eval tasks on local files; needs the lm-eval package
    lm_eval_tasks: list[str] = field(default_factory=list)
    lm_eval_path: str | None = None  # folder with those tasks' YAML files
    # sweep: choices of the group onnx/ to build and compare
    builds: list[str] = field(default_factory=list)
    fidelity: FidelityConfig = field(default_factory=FidelityConfig)
    speed: SpeedConfig = field(default_factory=SpeedConfig)

    def __post_init__(self) -> None:
        if self.max_new_tokens < 1:
            raise ConfigError(
                "evaluate.max_new_tokens", self.max_new_tokens, "an integer of at least 1"
            )
        if self.reasoning_tokens < 0:
            raise ConfigError(
                "evaluate.reasoning_tokens", self.reasoning_tokens, "an integer of at least 0"
            )
        if self.max_items is not None and self.max_items < 1:
            raise ConfigError(
                "evaluate.max_items", self.max_items, "an integer of at least 1, or null"
            )
        for name in ("candidate_timeout", "request_timeout"):
            if getattr(self, name) <= 0:
                raise ConfigError(f"evaluate.{name}", getattr(self, name), "seconds above 0")
        if self.memory_limit_bytes is not None and self.memory_limit_bytes < 1:
            raise ConfigError(
                "evaluate.memory_limit_bytes", self.memory_limit_bytes, "bytes above 0, or null"
            )
        for uri in self.candidates:
            if not uri.startswith(("models:/", "runs:/")):
                raise ConfigError(
                    "evaluate.candidates",
                    uri,
                    "model URIs (models:/m-…, models:/name/3, models:/name@champion, runs:/…)",
                )
        if self.lm_eval_tasks and not self.lm_eval_path:
            raise ConfigError(
                "evaluate.lm_eval_path",
                None,
                "a folder with the tasks' YAML files",
                "pass evaluate.lm_eval_path=…",
            )
