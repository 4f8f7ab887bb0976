"""Schema of the group ``evaluate/``: on what, and how long, a candidate is judged."""

from dataclasses import dataclass

from steps.config.errors import ConfigError


@dataclass
class EvaluateConfig:
    """How the candidates are judged."""

    pack: str = "smoke"  # a shipped pack's name, or any folder with pack.yaml and items.jsonl
    max_items: int | None = None  # items taken from the pack, spread over its skills; null takes all
    max_new_tokens: int = 64  # tokens an answer may have where the item does not say
    seed: int = 0
    candidate_timeout: float = 1800.0  # seconds one candidate may take before it counts as hung
    memory_limit_bytes: int | None = None  # resident bytes one candidate may hold; null sets no limit

    def __post_init__(self) -> None:
        if self.max_new_tokens < 1:
            raise ConfigError("evaluate.max_new_tokens", self.max_new_tokens, "an integer of at least 1")
        if self.max_items is not None and self.max_items < 1:
            raise ConfigError("evaluate.max_items", self.max_items, "an integer of at least 1, or null")
        if self.candidate_timeout <= 0:
            raise ConfigError("evaluate.candidate_timeout", self.candidate_timeout, "seconds above 0")
