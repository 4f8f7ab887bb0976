"""Schema of ``promotion.gates``: what a candidate must show on its own, and beside the
incumbent.
"""

from dataclasses import dataclass, field

from steps.core.errors import ConfigError


@dataclass
class AbsoluteGates:
    """Limits that hold whoever the incumbent is; null switches a gate off."""

    # mean item score, 0 to 1; the 95 % interval must lie above it, too
    quality_floor: float | None = 0.15
    # mean KL divergence to the checkpoint, nats per token, on the shipped texts; docs/adr/0004
    kl_ceiling: float | None = 0.25
    # a conversion renders conversations to the checkpoint's own tokens, in the folder and as it is
    # served
    chat_template: bool = True
    # seconds to the first token, short prompt; below 20 samples the slowest one counts
    ttft_p95_ceiling: float | None = 10.0
    rss_ceiling_bytes: int | None = None  # peak resident bytes of the serving process
    # SPDX identifiers that may be promoted; empty allows any
    licences: list[str] = field(default_factory=list)
    conformance_complete: bool = True  # every row of the chat contract passes or is a named limit

    def __post_init__(self) -> None:
        if self.quality_floor is not None and not 0 <= self.quality_floor <= 1:
            raise ConfigError(
                "promotion.gates.absolute.quality_floor",
                self.quality_floor,
                "a score from 0 to 1, or null",
            )
        for name in ("kl_ceiling", "ttft_p95_ceiling", "rss_ceiling_bytes"):
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise ConfigError(
                    f"promotion.gates.absolute.{name}", value, "a number above 0, or null"
                )


@dataclass
class RelativeGates:
    """Paired comparison with the incumbent on the same items; skipped where there is none."""

    enabled: bool = True
    # the mean score may be this much lower, and no more (non-inferiority margin)
    quality_margin: float = 0.1
    confidence: float = 0.95  # one-sided confidence that the loss stays within the margin
    resamples: int = 9999  # bootstrap resamples
    ttft_ratio_ceiling: float | None = None  # time to first token p50, candidate over incumbent
    decode_ratio_floor: float | None = None  # decode tokens per second, candidate over incumbent

    def __post_init__(self) -> None:
        if not 0 < self.quality_margin < 1:
            raise ConfigError(
                "promotion.gates.relative.quality_margin",
                self.quality_margin,
                "a score difference between 0 and 1",
            )
        if not 0.5 < self.confidence < 1:
            raise ConfigError(
                "promotion.gates.relative.confidence",
                self.confidence,
                "a probability between 0.5 and 1",
            )
        if self.resamples < 999:
            raise ConfigError(
                "promotion.gates.relative.resamples", self.resamples, "an integer of at least 999"
            )
        for name in ("ttft_ratio_ceiling", "decode_ratio_floor"):
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise ConfigError(
                    f"promotion.gates.relative.{name}", value, "a ratio above 0, or null"
                )


@dataclass
class GatesConfig:
    """All gates of a policy."""

    absolute: AbsoluteGates = field(default_factory=AbsoluteGates)
    relative: RelativeGates = field(default_factory=RelativeGates)
