"""Schema of the group ``evaluate/``: on what, and how long, a candidate is judged."""

from dataclasses import dataclass, field

from steps.config import bounds
from steps.config.bounds import above, at_least, between, bounded
from steps.config.isolation import Isolation
from steps.core.errors import ConfigError

MOST_CONCURRENT_ITEMS = 64  # a thread of the candidate's process each


@dataclass
class FidelityConfig:
    """Teacher-forced comparison of a converted variant with its checkpoint."""

    enabled: bool = True  # false leaves it out of the report; its gate is then undecided
    # tokens compared, taken in turn from each text; the shipped texts hold a little over 21,000
    tokens: int = 2176
    # tokens scored in one forward pass: bounds memory at window * vocabulary * 4 bytes
    window: int = bounded(128, at_least(16))
    texts: str | None = None  # folder of *.txt files to take instead of the shipped ones
    # prompts continued greedily by both, to find the first divergence
    continuations: int = bounded(4, at_least(0))
    continuation_tokens: int = bounded(32, at_least(1))  # tokens a continuation may have

    def __post_init__(self) -> None:
        bounds.check(self, "evaluate.fidelity")
        if self.tokens < self.window:
            raise ConfigError(
                "evaluate.fidelity.tokens",
                self.tokens,
                f"at least one window ({self.window} tokens)",
            )


@dataclass
class SpeedConfig:
    """Timings, taken on the loaded model and never through tracing."""

    enabled: bool = True  # false leaves it out of the report; its gates are then undecided
    # untimed requests before the rounds, each prompt length
    warmup: int = bounded(1, at_least(0))
    rounds: int = bounded(3, at_least(1))  # timed rounds, interleaved across the candidates
    new_tokens: int = bounded(32, at_least(2))  # tokens each timed answer has
    # short and long prompt, in tokens of roughly 4 characters
    prompt_tokens: list[int] = field(
        default_factory=lambda: [32, 384], metadata={bounds.KEY: at_least(1, "integers")}
    )
    # requests at once
    concurrency: list[int] = field(
        default_factory=lambda: [1, 4, 8], metadata={bounds.KEY: at_least(1, "integers")}
    )
    burst_tokens: int = bounded(16, at_least(1))  # tokens each answer of a burst has
    # share of the CPU time that other processes may take meanwhile, and half of it what other
    # guests of the host may; above it, gates on speed are undecided, and a profile is where its
    # winner would lose with its times doubled and the others' halved; 1 never minds
    max_other_load: float = bounded(0.2, between(0, 1, "a share"))

    def __post_init__(self) -> None:
        bounds.check(self, "evaluate.speed")


@dataclass
class EvaluateConfig:
    """How the candidates are judged."""

    pack: str = "smoke"  # a shipped pack's name, or any folder with pack.yaml and items.jsonl
    # items taken from the pack, spread over its skills; null takes all
    max_items: int | None = bounded(None, at_least(1))
    # tokens an answer may have where the item does not say
    max_new_tokens: int = bounded(64, at_least(1))
    # further tokens that a model which reasons first may use for that; what follows is scored
    reasoning_tokens: int = bounded(256, at_least(0))
    # items of the pack that a candidate is asked at once, as a served model is; their latencies are
    # measured under that load
    concurrent_items: int = bounded(8, between(1, MOST_CONCURRENT_ITEMS, "an integer"))
    seed: int = 0  # of the resamples behind intervals, and of lm-eval's examples
    # model URIs; empty takes the two that this chain logged
    candidates: list[str] = field(default_factory=list)
    incumbent: bool = True  # judge the registry's champion too, where there is one
    conformance: bool = True  # the chat contract, row by row
    traces: bool = True  # every answer becomes a trace with its assessments
    # seconds one candidate may take before it counts as hung
    candidate_timeout: float = bounded(3600.0, above(0, "seconds"))
    # seconds one request may take before the candidate counts as hung
    request_timeout: float = bounded(600.0, above(0, "seconds"))
    # resident bytes one candidate may hold; null sets no limit
    memory_limit_bytes: int | None = bounded(None, above(0, "bytes"))
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
        bounds.check(self, "evaluate")
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
