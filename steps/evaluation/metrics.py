"""Names of the metrics that an evaluation logs, and how each is shown to people."""

from dataclasses import dataclass

QUALITY_SCORE = "quality/score"  # mean score on the pack, 0 to 1
QUALITY_LOW = "quality/score_low"  # 95 % interval
QUALITY_HIGH = "quality/score_high"
INTERVAL = (QUALITY_LOW, QUALITY_HIGH)
QUALITY_ITEMS = "quality/items"  # of the pack, answered
KL_MEAN = "fidelity/kl_mean"  # nats
KL_P99 = "fidelity/kl_p99"
KL_PAST_BORDERS = "fidelity/past_borders_kl"
TOP1_AGREEMENT = "fidelity/top1_agreement"
PERPLEXITY = "fidelity/perplexity"
PERPLEXITY_REFERENCE = "fidelity/perplexity_reference"
PROMPT_AGREEMENT = "fidelity/prompt_agreement"
SERVED_PROMPT_AGREEMENT = "fidelity/served_prompt_agreement"
FIRST_DIVERGENCE = "fidelity/first_divergence_median"
LOAD = "speed/load_s"
TTFT_P50 = "speed/ttft_p50_s"  # time to the first token
TTFT_P95 = "speed/ttft_p95_s"
TTFT_MAX = "speed/ttft_max_s"
ITL_P50 = "speed/itl_p50_s"  # inter-token latency
DECODE = "speed/decode_tokens_per_second"
LOADED_RSS = "memory/loaded_rss_bytes"
PEAK_RSS = "memory/peak_rss_bytes"
SIZE = "size/bytes"
CONFORMANCE_PASSED = "conformance/passed"
CONFORMANCE_TOTAL = "conformance/total"
LM_EVAL = "lm_eval/"  # + task/metric


@dataclass(frozen=True)
class Metric:
    """How a metric is shown.

    Attributes:
        name: as it is logged.
        group: heading that it stands under.
        label: what it is called.
        unit: of the text, after ``factor``.
        factor: from the logged value to the text's.
        digits: after the point.
        higher_is_better: None where neither is.
        spread: metrics that hold its lowest and highest value.
        out_of: metric that holds the most it can be.
    """

    name: str
    group: str
    label: str
    unit: str = ""
    factor: float = 1.0
    digits: int = 0
    higher_is_better: bool | None = None
    spread: tuple[str, str] | None = None
    out_of: str | None = None

    def text(self, value: float) -> str:
        """A logged value without its unit."""
        scaled = value * self.factor
        if scaled and self.digits and abs(scaled) < 10**-self.digits:
            return f"{scaled:.1e}"
        return f"{scaled:,.{self.digits}f}"


def _latency(name: str, label: str, percentile: int, digits: int = 0) -> Metric:
    stem = f"speed/{name}"
    spread = (f"{stem}_min_s", f"{stem}_max_s") if percentile == 50 else None
    return Metric(
        f"{stem}_p{percentile}_s",
        "Speed",
        f"{label}, p{percentile}",
        "ms",
        1000,
        digits,
        False,
        spread,
    )


def _rate(name: str, label: str) -> Metric:
    spread = (f"{name}_min", f"{name}_max")
    return Metric(name, "Speed", label, "tokens/s", 1, 1, True, spread)


TABLE: tuple[Metric, ...] = (
    Metric(QUALITY_SCORE, "Quality", "mean score", "%", 100, 1, True, (QUALITY_LOW, QUALITY_HIGH)),
    Metric(KL_MEAN, "Fidelity", "KL to the checkpoint, mean", "nats", 1, 4, False),
    Metric(KL_P99, "Fidelity", "KL to the checkpoint, p99", "nats", 1, 3, False),
    Metric(TOP1_AGREEMENT, "Fidelity", "same most likely token", "%", 100, 1, True),
    Metric(PERPLEXITY, "Fidelity", "perplexity", "", 1, 2, False),
    Metric(FIRST_DIVERGENCE, "Fidelity", "greedy text identical for", "tokens", 1, 0, True),
    Metric(LOAD, "Speed", "load, until ready, once", "s", 1, 1, False),
    Metric("speed/prompt_tokens", "Speed", "short prompt", "tokens"),
    Metric("speed/prompt_tokens_long", "Speed", "long prompt", "tokens"),
    _latency("ttft", "first token, short prompt", 50),
    _latency("ttft", "first token, short prompt", 95),
    _latency("ttft_long", "first token, long prompt", 50),
    _latency("itl", "between tokens", 50, 1),
    _latency("itl", "between tokens", 95, 1),
    _latency("itl", "between tokens", 99, 1),
    _rate(DECODE, "decode"),
    _rate("speed/throughput_1", "throughput, 1 request"),
    _rate("speed/throughput_4", "throughput, 4 at once"),
    _rate("speed/throughput_8", "throughput, 8 at once"),
    Metric(PEAK_RSS, "Cost", "peak resident memory", "MB", 1e-6, 0, False),
    Metric(SIZE, "Cost", "size on disk", "MB", 1e-6, 0, False),
    Metric(
        CONFORMANCE_PASSED,
        "Contract",
        "rows of the chat contract held",
        higher_is_better=True,
        out_of=CONFORMANCE_TOTAL,
    ),
)
METRICS = {metric.name: metric for metric in TABLE}


def of_task(name: str) -> Metric:
    """A metric of lm-eval: which way is better, only its task knows."""
    return Metric(name, "lm-eval", name.removeprefix(LM_EVAL).replace("/", ", "), digits=3)
