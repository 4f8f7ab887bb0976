"""What a version's evidence says of the figures that can be seen where it is served."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from steps.evaluation import metrics
from steps.evaluation.check_functions import fold
from steps.evaluation.refusals import refuses
from steps.evaluation.report import CandidateReport, ItemResult, Report

# row of the chat contract that tells whether JSON is kept to where it is asked for
JSON_ROW = "response_format json_object"
JSON_CHECKS = frozenset({"json_valid", "json_schema"})
REFUSAL_CHECK = "refusal"
# a live prompt is of a similar length as the timed ones from this share of the shortest up to so
# many times the longest
SHORTEST, LONGEST = 0.5, 2.0
LEAST_TOKENS = 8  # of an answer whose mean time between tokens says anything

Points = tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class Baseline:
    """Figures of one evaluation, each None or empty where it was not measured.

    Attributes:
        first_token: median seconds to the first token by prompt tokens, ascending.
        inter_token_s: median over the timed answers of their mean seconds between tokens.
        slowdown: by requests at once, ascending: how many times as long a token takes then.
        answer_tokens: median tokens of an answer to the pack.
        error_rate: share of the pack's items that ended in an error.
        refusal_rate: share of answers that decline, without items that ask for something to be
            declined.
        format_validity: share of answers that are JSON where JSON was asked for.
        processor: that it was measured on.
        items: of the pack.
    """

    first_token: Points = ()
    inter_token_s: float | None = None
    slowdown: Points = ()
    answer_tokens: float | None = None
    error_rate: float | None = None
    refusal_rate: float | None = None
    format_validity: float | None = None
    processor: str = ""
    items: int = 0

    def first_token_after(self, prompt_tokens: int) -> float | None:
        """Expected seconds to the first token of a lone request; None where no prompt of a similar
        length was timed.
        """
        if not self.first_token:
            return None
        shortest, longest = self.first_token[0][0], self.first_token[-1][0]
        if not SHORTEST * shortest <= prompt_tokens <= LONGEST * longest:
            return None
        return _between(self.first_token, prompt_tokens)

    def inter_token_with(self, concurrency: int) -> float | None:
        """Expected seconds between tokens with so many requests at once; None where so many were
        not tried.
        """
        if self.inter_token_s is None:
            return None
        if concurrency <= 1:
            return self.inter_token_s
        if not self.slowdown or concurrency > self.slowdown[-1][0]:
            return None
        return self.inter_token_s * _between(self.slowdown, concurrency)


def of(report: Report, candidate: CandidateReport) -> Baseline:
    """The baseline in a candidate's report, with its answers and timings.

    Args:
        report: whole, as ``report.json`` has it.
        candidate: of that report.
    """
    speed = candidate.series.get("speed") or {}
    items = candidate.quality.items
    answered = [item for item in items if item.error is None]
    asked = [item for item in answered if not _tries_refusal(item)]
    tokens = [item.completion_tokens for item in answered if item.completion_tokens > 0]
    return Baseline(
        first_token=_first_token(speed, candidate.metrics),
        inter_token_s=_inter_token(speed),
        slowdown=_slowdown(speed),
        answer_tokens=statistics.median(tokens) if tokens else None,
        error_rate=1 - len(answered) / len(items) if items else None,
        refusal_rate=(
            sum(refuses(fold(item.answer)) for item in asked) / len(asked) if asked else None
        ),
        format_validity=_format_validity(candidate, answered),
        processor=str(report.machine.get("processor") or ""),
        items=len(items),
    )


def _first_token(speed: Mapping[str, Any], measured: Mapping[str, float]) -> Points:
    """By prompt tokens as the model counts them; those of the shortest and longest are known."""
    lengths = sorted((int(tokens), rounds) for tokens, rounds in _streams(speed).items())
    counted = [measured.get("speed/prompt_tokens"), measured.get("speed/prompt_tokens_long")]
    ends = lengths[:1] + lengths[1:][-1:]
    points = {
        float(count or asked): statistics.median(float(one["ttft_s"]) for one in rounds)
        for (asked, rounds), count in zip(ends, counted, strict=False)
    }
    if not points and metrics.TTFT_P50 in measured and counted[0]:
        points = {counted[0]: measured[metrics.TTFT_P50]}
    return tuple(sorted((tokens, seconds) for tokens, seconds in points.items() if seconds > 0))


def _inter_token(speed: Mapping[str, Any]) -> float | None:
    """As the server takes it: from the first text to the end, over the tokens after the first."""
    means = [
        (float(one["total_s"]) - float(one["ttft_s"])) / (int(one["tokens"]) - 1)
        for rounds in _streams(speed).values()
        for one in rounds
        if int(one.get("tokens") or 0) >= LEAST_TOKENS
    ]
    found = statistics.median(means) if means else 0.0
    return found if found > 0 else None


def _slowdown(speed: Mapping[str, Any]) -> Points:
    """From the bursts: n requests at once that make r tokens a second take n / r for a token."""
    rates = {
        int(concurrency): statistics.median(float(rate) for rate in rounds)
        for concurrency, rounds in (speed.get("bursts") or {}).items()
        if rounds
    }
    alone = rates.get(1)
    if not alone or min(rates.values()) <= 0:
        return ()
    return tuple((float(n), max(1.0, n * alone / rates[n])) for n in sorted(rates))


def _streams(speed: Mapping[str, Any]) -> dict[str, list[dict[str, Any]]]:
    return {tokens: rounds for tokens, rounds in (speed.get("streams") or {}).items() if rounds}


def _tries_refusal(item: ItemResult) -> bool:
    return any(check.type == REFUSAL_CHECK for check in item.checks)


def _format_validity(candidate: CandidateReport, items: Sequence[ItemResult]) -> float | None:
    """By the chat contract where its row was held, else by the pack's items that ask for JSON."""
    if any(row.name == JSON_ROW and row.passed for row in candidate.conformance.rows):
        return 1.0
    held = [
        all(check.passed for check in item.checks if check.type in JSON_CHECKS)
        for item in items
        if any(check.type in JSON_CHECKS for check in item.checks)
    ]
    return sum(held) / len(held) if held else None


def _between(points: Points, at: float) -> float:
    """On the line through the two points around a place; beyond the last, on the last line; before
    the first, as there.
    """
    if at <= points[0][0] or len(points) == 1:
        return points[0][1]
    for (left, low), (right, high) in pairwise(points):
        if at <= right or right == points[-1][0]:
            return max(low + (high - low) * (at - left) / (right - left), points[0][1])
    return points[-1][1]
