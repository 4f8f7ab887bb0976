"""Schema of ``generation``: the defaults that both logged variants answer with."""

from dataclasses import dataclass, field
from typing import Any

from steps.core.errors import ConfigError


@dataclass
class GenerationConfig:
    """Defaults for a request that does not say otherwise."""

    max_new_tokens: int = 256  # tokens
    temperature: float = 0.0  # 0 is greedy decoding
    # given to the chat template beside messages and tools, as
    # +generation.chat_template_kwargs.enable_thinking=false
    chat_template_kwargs: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.max_new_tokens < 1:
            raise ConfigError(
                "generation.max_new_tokens", self.max_new_tokens, "an integer of at least 1"
            )
        if not 0 <= self.temperature <= 2:
            raise ConfigError("generation.temperature", self.temperature, "a number from 0 to 2")
