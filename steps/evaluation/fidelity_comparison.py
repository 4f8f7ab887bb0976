"""What was measured of one conversion beside its checkpoint, and the figures made of it."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from steps.evaluation import metrics, statistics


@dataclass
class Comparison:
    """What was measured of one conversion; lists have one value a token."""

    kl: list[float] = field(default_factory=list)
    agree: list[float] = field(default_factory=list)
    nll: list[float] = field(default_factory=list)
    nll_reference: list[float] = field(default_factory=list)
    # text, first and last + 1 index into kl, one a window
    spans: list[tuple[str, int, int]] = field(default_factory=list)
    # tokens that two greedy continuations share
    divergence: list[int] = field(default_factory=list)
    continued: int = 0  # tokens a continuation may have
    # conversations that both templates render to the same tokens
    prompts_equal: list[bool] = field(default_factory=list)
    # tokens of each conversation; None where the template refuses it
    prompt_lengths: list[int | None] = field(default_factory=list)
    windows: int = 0  # that the reference was read in
    past: dict[int, float] = field(default_factory=dict)  # mean KL of the tokens past each border
    context: int = 0  # tokens that the conversion takes
    borders: list[int] = field(default_factory=list)  # that were to be compared

    @property
    def complete(self) -> bool:
        """Whether every window and border was compared, and every conversation that the template
        takes was rendered.
        """
        rendered = [length for length in self.prompt_lengths if length is not None]
        return (
            len(self.spans) == self.windows
            and len(self.prompts_equal) == len(rendered)
            and len(self.past) == len(self.borders)
        )


def metrics_of(comparison: Comparison) -> dict[str, float]:
    """Flat metrics: KL in nats, agreement as a share, perplexities, first divergence in tokens;
    none where a window is missing.
    """
    if not comparison.kl or not comparison.complete:
        return {}
    reference = float(np.exp(np.mean(comparison.nll_reference)))
    perplexity = float(np.exp(np.mean(comparison.nll)))
    figures = {
        metrics.KL_MEAN: float(np.mean(comparison.kl)),
        "fidelity/kl_median": statistics.percentile(comparison.kl, 50),
        metrics.KL_P99: statistics.percentile(comparison.kl, 99),
        "fidelity/kl_max": max(comparison.kl),
        metrics.TOP1_AGREEMENT: float(np.mean(comparison.agree)),
        metrics.PERPLEXITY: perplexity,
        metrics.PERPLEXITY_REFERENCE: reference,
        "fidelity/perplexity_difference": perplexity - reference,
        "fidelity/tokens": float(len(comparison.kl)),
    }
    if comparison.past:
        figures[metrics.KL_PAST_BORDERS] = max(comparison.past.values())
    if comparison.prompts_equal:
        figures[metrics.PROMPT_AGREEMENT] = float(np.mean(comparison.prompts_equal))
    if comparison.divergence:
        figures[metrics.FIRST_DIVERGENCE] = statistics.percentile(comparison.divergence, 50)
        figures["fidelity/identical_continuations"] = float(
            np.mean([length >= comparison.continued for length in comparison.divergence])
        )
    return figures


def series_of(comparison: Comparison) -> dict[str, Any]:
    """Curves for the report: quantiles of KL, and figures by text."""
    if not comparison.kl:
        return {}
    kl, agree = np.asarray(comparison.kl), np.asarray(comparison.agree)
    by_text: dict[str, dict[str, float]] = {}
    for name in dict.fromkeys(text for text, _, _ in comparison.spans):
        picked = np.concatenate(
            [np.arange(start, stop) for text, start, stop in comparison.spans if text == name]
        )
        by_text[name] = {
            "kl_mean": float(kl[picked].mean()),
            "top1_agreement": float(agree[picked].mean()),
            "tokens": float(len(picked)),
        }
    return {
        "quantiles": [float(value) for value in np.quantile(kl, np.linspace(0, 1, 101))],
        "by_text": by_text,
        "divergence": comparison.divergence,
        "past_borders": {str(border): kl for border, kl in comparison.past.items()},
    }
