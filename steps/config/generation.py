"""Schema of ``generation``: the defaults that both logged variants answer with."""

from dataclasses import dataclass, field
from typing import Any

from steps.config import bounds
from steps.config.bounds import at_least, between, bounded


@dataclass
class GenerationConfig:
    """Defaults for a request that does not say otherwise."""

    max_new_tokens: int = bounded(256, at_least(1))  # tokens
    # 0 is greedy decoding
    temperature: float = bounded(0.0, between(0, 2, "a number"))
    # given to the chat template beside messages and tools, as
    # +generation.chat_template_kwargs.enable_thinking=false
    chat_template_kwargs: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        bounds.check(self, "generation")
