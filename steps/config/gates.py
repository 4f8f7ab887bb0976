"""Schema of ``promotion.gates``: what a candidate must show on its own, and beside the
incumbent.
"""

from dataclasses import dataclass, field

from steps.config import bounds
from steps.config.bounds import above, at_least, between, bounded, inside


@dataclass
class AbsoluteGates:
    """Limits that hold whoever the incumbent is; null switches a gate off."""

    # mean item score, 0 to 1; the 95 % interval must lie above it, too
    quality_floor: float | None = bounded(0.15, between(0, 1, "a score"))
    # mean KL divergence to the checkpoint, nats per token, on the shipped texts; docs/adr/0004
    kl_ceiling: float | None = bounded(0.25, above(0, "a number"))
    # a conversion renders conversations to the checkpoint's own tokens, in the folder and as it is
    # served
    chat_template: bool = True
    # seconds to the first token, short prompt; below 20 samples the slowest one counts
    ttft_p95_ceiling: float | None = bounded(10.0, above(0, "a number"))
    # peak resident bytes of the serving process
    rss_ceiling_bytes: int | None = bounded(None, above(0, "a number"))
    # SPDX identifiers that may be promoted; empty allows any
    licences: list[str] = field(default_factory=list)
    conformance_complete: bool = True  # every row of the chat contract passes or is a named limit

    def __post_init__(self) -> None:
        bounds.check(self, "promotion.gates.absolute")


@dataclass
class RelativeGates:
    """Paired comparison with the incumbent on the same items; skipped where there is none."""

    enabled: bool = True  # false judges without the incumbent
    # the mean score may be this much lower, and no more (non-inferiority margin)
    quality_margin: float = bounded(0.1, inside(0, 1, "a score difference"))
    # one-sided confidence that the loss stays within the margin
    confidence: float = bounded(0.95, inside(0.5, 1, "a probability"))
    resamples: int = bounded(9999, at_least(999))  # bootstrap resamples
    # time to first token p50, candidate over incumbent
    ttft_ratio_ceiling: float | None = bounded(None, above(0, "a ratio"))
    # decode tokens per second, candidate over incumbent
    decode_ratio_floor: float | None = bounded(None, above(0, "a ratio"))

    def __post_init__(self) -> None:
        bounds.check(self, "promotion.gates.relative")


@dataclass
class GatesConfig:
    """All gates of a policy."""

    absolute: AbsoluteGates = field(default_factory=AbsoluteGates)
    relative: RelativeGates = field(default_factory=RelativeGates)
