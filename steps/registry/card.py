"""The model card that stands as a version's description."""

from collections.abc import Mapping
from pathlib import Path

import jinja2

from steps.core import tags
from steps.evaluation import metrics, publish
from steps.evaluation.report import CandidateReport
from steps.registry.aliases import ONNX
from steps.registry.client import DESCRIPTION_LIMIT
from steps.registry.evidence import Evidence

TEMPLATE = Path(__file__).with_name("card.md.j2")
MOST_LIMITS = 8  # lines; the report has them all
FIGURES: tuple[tuple[str, str, float, str], ...] = (  # label, metric, factor, format
    ("Quality, share of the items passed", metrics.QUALITY_SCORE, 100, "{:.1f} %"),
    ("Mean KL divergence to the checkpoint, nats", metrics.KL_MEAN, 1, "{:.3g}"),
    ("Top-1 agreement with the checkpoint", metrics.TOP1_AGREEMENT, 100, "{:.1f} %"),
    ("Perplexity", metrics.PERPLEXITY, 1, "{:.2f}"),
    ("Time to first token, p50 / ms", metrics.TTFT_P50, 1e3, "{:.0f}"),
    ("Decode, tokens per second", metrics.DECODE, 1, "{:.1f}"),
    ("Load, s", metrics.LOAD, 1, "{:.1f}"),
    ("Peak resident memory, MB", metrics.PEAK_RSS, 1e-6, "{:.0f}"),
    ("Size on disk, MB", metrics.SIZE, 1e-6, "{:.0f}"),
)


def figures(measured: Mapping[str, float]) -> list[tuple[str, str]]:
    """Label and value of the metrics that a card shows, where they were measured."""
    return [
        (label, form.format(measured[name] * factor))
        for label, name, factor, form in FIGURES
        if name in measured
    ]


def _shown(value: float | bool | None) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def render(
    name: str,
    version: int | str,
    candidate: CandidateReport,
    evidence: Evidence,
    logged_tags: Mapping[str, str],
    command: str,
) -> str:
    """The card of one version, in Markdown.

    Args:
        name: registered model.
        version: its number, or a word where it has none yet.
        candidate: what the report says of it.
        evidence: the report.
        logged_tags: tags of the logged model.
        command: what makes the model again.

    Returns:
        At most 5000 characters, the most that a registry on PostgreSQL takes.
    """
    environment = jinja2.Environment(
        undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True, autoescape=False
    )
    environment.filters["shown"] = _shown
    snapshot = evidence.report.snapshot or {}
    run_id = evidence.uri.removeprefix("runs:/").partition("/")[0]
    kind = (
        "An ONNX build served by ONNX Runtime"
        if candidate.variant == ONNX
        else "The checkpoint's own weights served by transformers"
    )
    limits = [clause for clause in logged_tags.get(tags.CAPABILITIES, "").split("; ") if clause]
    limits += list(candidate.conformance_limits[:MOST_LIMITS]) or [
        "No row of the chat contract is known to fail."
    ]
    if len(candidate.conformance_limits) > MOST_LIMITS:
        limits.append(
            f"{len(candidate.conformance_limits) - MOST_LIMITS} more rows: see the report's"
            " conformance matrix."
        )
    if not candidate.passes:
        limits.append("It did not pass its gates: not for production.")
    text = environment.from_string(TEMPLATE.read_text(encoding="utf-8")).render(
        name=name,
        version=version,
        candidate=candidate,
        evidence=evidence,
        page=publish.fragment(evidence.experiment_id, run_id) if evidence.experiment_id else "",
        run=f"#/experiments/{evidence.experiment_id}/runs/{run_id}",
        summary=f"{kind}, behind the chat contract that all versions of this model share.",
        source=snapshot.get("repo") or "not recorded",
        revision=logged_tags.get(tags.SNAPSHOT_REVISION)
        or snapshot.get("revision")
        or "not recorded",
        licence=logged_tags.get(tags.LICENCE) or snapshot.get("licence") or "not recorded",
        fingerprint=logged_tags.get(tags.FINGERPRINT, "not recorded"),
        figures=figures(candidate.metrics),
        failed_gates=candidate.failed_gates,
        limits=limits,
        command=command,
    )
    return text.strip()[:DESCRIPTION_LIMIT]
