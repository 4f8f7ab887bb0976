"""The policy's verdict on one candidate: absolute gates, then a paired comparison with the
incumbent. Pure functions.
"""

from collections.abc import Iterator
from dataclasses import replace

from steps.config.gates import AbsoluteGates, GatesConfig, RelativeGates
from steps.evaluation import metrics, statistics
from steps.evaluation.report import HOLD, INSUFFICIENT, PROMOTE, CandidateReport, Gate, Verdict

CONVERTED = "onnx"  # the variant whose weights are not the checkpoint's own
# gates on speed
TTFT = "time to first token"
TTFT_RATIO = "time to first token vs incumbent"
DECODE_RATIO = "decode vs incumbent"


def decide(
    candidate: CandidateReport,
    incumbent: CandidateReport | None,
    gates: GatesConfig,
    seed: int,
    *,
    busy: str = "",
) -> Verdict:
    """``hold`` when a gate fails, ``insufficient_evidence`` when none fails but one cannot be
    decided, else ``promote``.

    Args:
        incumbent: what serves now, judged in the same evaluation; None where there is none.
        busy: what else took the machine while speed was measured, in words; gates on speed are then
            undecided, except for an absolute limit that is kept all the same.
    """
    if candidate.status == "failed":
        reason = candidate.failure.reason if candidate.failure else "failed"
        return Verdict(HOLD, (Gate("evaluated", False, True, False, reason),))
    results = list(absolute(candidate, gates.absolute))
    if gates.relative.enabled and incumbent is not None and candidate.role != "incumbent":
        results += relative(candidate, incumbent, gates.relative, seed)
    if busy:
        results = [_disturbed(gate, busy) for gate in results]
    outcomes = [gate.passed for gate in results]
    decision = HOLD if False in outcomes else INSUFFICIENT if None in outcomes else PROMOTE
    return Verdict(decision, tuple(results))


def _disturbed(gate: Gate, busy: str) -> Gate:
    """A gate on speed, where something else kept the machine busy meanwhile."""
    if gate.name not in (TTFT, TTFT_RATIO, DECODE_RATIO) or gate.passed is None:
        return gate
    if gate.name == TTFT and gate.passed:  # with less to do it would be faster still
        return gate
    reason = f"{gate.reason}; but {busy} meanwhile: evaluate again on a quiet machine"
    return replace(gate, passed=None, reason=reason)


def absolute(candidate: CandidateReport, gates: AbsoluteGates) -> Iterator[Gate]:
    """Gates on the candidate alone."""
    yield Gate("evaluated", True, True, True, "loaded and judged in a process of its own")
    if gates.quality_floor is not None:
        yield _quality(candidate, gates.quality_floor)
    if gates.kl_ceiling is not None and candidate.variant == CONVERTED:
        yield _ceiling(
            "fidelity",
            candidate,
            metrics.KL_MEAN,
            gates.kl_ceiling,
            "nats per token from the checkpoint",
        )
        if metrics.KL_PAST_BORDERS in candidate.metrics:
            yield _past_borders(candidate, gates.kl_ceiling)
    if gates.chat_template and candidate.variant == CONVERTED:
        yield _template(candidate)
    if gates.ttft_p95_ceiling is not None:
        enough = metrics.TTFT_P95 in candidate.metrics
        metric, unit = (
            (metrics.TTFT_P95, "s at p95")
            if enough
            else (metrics.TTFT_MAX, "s at the most, as there are too few samples for a p95")
        )
        yield _ceiling(TTFT, candidate, metric, gates.ttft_p95_ceiling, unit)
    if gates.rss_ceiling_bytes is not None:
        yield _ceiling(
            "memory",
            candidate,
            metrics.PEAK_RSS,
            gates.rss_ceiling_bytes,
            "resident bytes at the peak",
        )
    if gates.licences:
        known = candidate.licence in gates.licences
        reason = (
            f"{candidate.licence or 'no licence is recorded'}; allowed: {', '.join(gates.licences)}"
        )
        yield Gate("licence", candidate.licence, gates.licences, known, reason)
    if gates.conformance_complete:
        yield _conformance(candidate)


def _template(candidate: CandidateReport) -> Gate:
    """Both ways of rendering a conversation: the folder's own, and what the served model counts."""
    shares = {
        "are rendered to the checkpoint's own tokens": candidate.metrics.get(
            metrics.PROMPT_AGREEMENT
        ),
        "have the checkpoint's number of tokens when served": candidate.metrics.get(
            metrics.SERVED_PROMPT_AGREEMENT
        ),
    }
    known = {what: share for what, share in shares.items() if share is not None}
    reason = "; ".join(f"{share:.0%} of the conversations {what}" for what, share in known.items())
    least = min(known.values(), default=None)
    if least is not None and least < 1:
        return Gate("chat template", least, 1.0, False, reason)
    if len(known) < len(shares):
        missing = " and ".join(f"how many {what}" for what in shares if what not in known)
        return Gate(
            "chat template",
            least,
            1.0,
            None,
            f"it was not measured {missing}; evaluate.fidelity.enabled=true does, beside the"
            " checkpoint",
        )
    return Gate("chat template", least, 1.0, True, reason)


def _past_borders(candidate: CandidateReport, ceiling: float) -> Gate:
    """Texts longer than a sliding window or an original context: a build that ignores either is
    nats away, not tenths.

    So few tokens are compared there that a sound build's mean may be twice what it is elsewhere.
    """
    limit = max(ceiling, 2 * candidate.metrics.get(metrics.KL_MEAN, 0.0))
    return _ceiling(
        "fidelity past the borders",
        candidate,
        metrics.KL_PAST_BORDERS,
        limit,
        "nats per token, where it is largest",
    )


def _conformance(candidate: CandidateReport) -> Gate:
    rows = candidate.conformance.rows
    if not rows:
        return Gate(
            "conformance",
            None,
            True,
            None,
            "the chat contract was not tried; evaluate.conformance=true does",
        )
    broken = [row.name for row in rows if not row.passed and row.limit is None]
    limits = [row.name for row in rows if row.limit is not None]
    reason = (
        f"broken: {', '.join(broken)}"
        if broken
        else f"{len(rows) - len(limits)} of {len(rows)} rows hold"
    )
    if limits:
        reason += f"; named limits: {', '.join(limits)}"
    return Gate(
        "conformance", candidate.conformance.complete, True, candidate.conformance.complete, reason
    )


def relative(
    candidate: CandidateReport, incumbent: CandidateReport, gates: RelativeGates, seed: int
) -> Iterator[Gate]:
    """Gates beside the incumbent, on the same items and the same machine."""
    if incumbent.status == "failed":
        reason = "the incumbent could not be evaluated; evaluate.incumbent=false judges without it"
        yield Gate("quality vs incumbent", None, -gates.quality_margin, None, reason)
        return
    theirs = {item.id: item.score for item in incumbent.quality.items}
    pairs = [(item.score, theirs[item.id]) for item in candidate.quality.items if item.id in theirs]
    if not pairs:
        yield Gate(
            "quality vs incumbent",
            None,
            -gates.quality_margin,
            None,
            "no item was answered by both",
        )
    else:
        ours, others = zip(*pairs, strict=True)
        comparison = statistics.non_inferiority(
            ours,
            others,
            margin=gates.quality_margin,
            confidence=gates.confidence,
            resamples=gates.resamples,
            seed=seed,
        )
        passed = {statistics.NOT_WORSE: True, statistics.WORSE: False, statistics.UNDECIDED: None}[
            comparison.outcome
        ]
        gap, needed = comparison.difference, comparison.needed
        reason = (
            f"difference {gap.value:+.3f} ({gap.low:+.3f} to {gap.high:+.3f}) on {comparison.items}"
            f" items, margin {comparison.margin:g}"
        )
        reason += f"; equal models differ as much with p = {comparison.p_value:.2g}"
        if passed is None and comparison.items < needed:
            reason += f": the pack is too small to decide, about {needed} items would be needed"
        elif passed is None:
            reason += (
                f": too close to the margin to decide, though about {needed} items are enough"
                " for two equal models"
            )
        yield Gate("quality vs incumbent", gap.low, -gates.quality_margin, passed, reason)
    if gates.ttft_ratio_ceiling is not None:
        yield _ratio(
            TTFT_RATIO,
            candidate,
            incumbent,
            metrics.TTFT_P50,
            gates.ttft_ratio_ceiling,
            highest=True,
        )
    if gates.decode_ratio_floor is not None:
        yield _ratio(
            DECODE_RATIO,
            candidate,
            incumbent,
            metrics.DECODE,
            gates.decode_ratio_floor,
            highest=False,
        )


def _ratio(
    name: str,
    candidate: CandidateReport,
    incumbent: CandidateReport,
    metric: str,
    limit: float,
    *,
    highest: bool,
) -> Gate:
    ours, theirs = candidate.metrics.get(metric), incumbent.metrics.get(metric)
    if ours is None or not theirs:
        return Gate(name, None, limit, None, f"{metric} was not measured on both")
    ratio = ours / theirs
    return Gate(
        name,
        ratio,
        limit,
        ratio <= limit if highest else ratio >= limit,
        f"{metric}: {ours:.4g} over {theirs:.4g}",
    )


def _ceiling(name: str, candidate: CandidateReport, metric: str, limit: float, unit: str) -> Gate:
    value = candidate.metrics.get(metric)
    if value is None:
        return Gate(name, None, limit, None, f"{metric} was not measured")
    return Gate(name, value, limit, value <= limit, f"{value:.4g} {unit}, at most {limit:g}")


def _needed(score: float, floor: float) -> str:
    needed = statistics.items_for_floor(score, floor)
    return f"about {needed}" if needed else "more"


def _quality(candidate: CandidateReport, floor: float) -> Gate:
    """The mean score against the floor: below it fails, above it with all of its interval passes,
    else the items are too few.
    """
    score, low = (
        candidate.metrics.get(metrics.QUALITY_SCORE),
        candidate.metrics.get(metrics.QUALITY_LOW),
    )
    if score is None or low is None:
        return Gate("quality", None, floor, None, "quality/score was not measured")
    reason = f"the pack's mean score is {score:.3f}, at least {floor:g}"
    if low < floor <= score:
        return Gate(
            "quality",
            score,
            floor,
            None,
            f"{reason}; but it may be as low as {low:.3f}: {_needed(score, floor)} items would"
            " decide (evaluate.max_items, or a larger pack)",
        )
    return Gate("quality", score, floor, score >= floor, reason)
