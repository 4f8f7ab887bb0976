"""``report.html``: one self-contained file, no network, light and dark, wide and narrow, by mouse
and by keyboard.
"""

import difflib
import html
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from matplotlib.figure import Figure

from steps.config.promotion import PromotionConfig
from steps.evaluation import metrics
from steps.evaluation.metrics import Metric
from steps.evaluation.presentation import figures, plots
from steps.evaluation.presentation.labels import labels
from steps.evaluation.presentation.recommendation import recommend
from steps.evaluation.report import CandidateReport, ItemResult, Report

TEMPLATE = Path(__file__).with_name("report.html.j2")
DECISIONS = {
    "promote": "Passed its gates",
    "hold": "Held",
    "insufficient_evidence": "Not enough evidence",
}

# figures on a candidate's card: label, metric
HEADLINES = (
    ("score", metrics.QUALITY_SCORE),
    ("decode", metrics.DECODE),
    ("memory", metrics.PEAK_RSS),
    ("KL", metrics.KL_MEAN),
)


@dataclass(frozen=True)
class Cell:
    """One figure of the comparison table."""

    text: str
    spread: str
    best: bool
    share: float | None  # length of the bar, 0 to 1; None where there is nothing to compare


def headlines(candidate: CandidateReport) -> list[dict[str, str]]:
    """Label, text and unit of a candidate's first figures, where they were measured."""
    return [
        {
            "label": label,
            "text": metrics.METRICS[name].text(candidate.metrics[name]),
            "unit": metrics.METRICS[name].unit,
        }
        for label, name in HEADLINES
        if name in candidate.metrics
    ]


def _lm_eval(report: Report) -> list[Metric]:
    names = {name for candidate in report.candidates for name in candidate.metrics}
    return [metrics.of_task(name) for name in sorted(names) if name.startswith(metrics.LM_EVAL)]


def comparison(report: Report) -> list[dict[str, Any]]:
    """Rows of the comparison table that at least one candidate has a figure for."""
    rows: list[dict[str, Any]] = []
    for metric in (*metrics.TABLE, *_lm_eval(report)):
        values = [candidate.metrics.get(metric.name) for candidate in report.candidates]
        known = [value for value in values if value is not None]
        if not known:
            continue
        best = max(known) if metric.higher_is_better else min(known)
        comparable = metric.higher_is_better is not None and len(known) > 1
        if not comparable or min(known) == max(known) or _overlapping(metric, report):
            best = math.nan  # which no value equals
        largest = max(known) or 1.0
        cells = [
            None
            if value is None
            else Cell(
                metric.text(value),
                _spread(metric, candidate),
                value == best,
                max(0.0, value / largest) if comparable else None,
            )
            for candidate, value in zip(report.candidates, values, strict=True)
        ]
        rows.append(
            {"group": metric.group, "name": metric.label, "unit": metric.unit, "cells": cells}
        )
    return rows


def _spread(metric: Metric, candidate: CandidateReport) -> str:
    if metric.spread and all(name in candidate.metrics for name in metric.spread):
        return " to ".join(metric.text(candidate.metrics[name]) for name in metric.spread)
    if metric.out_of in candidate.metrics:
        return f"of {candidate.metrics[metric.out_of]:.0f}"
    return ""


def _overlapping(metric: Metric, report: Report) -> bool:
    """Whether the confidence intervals of a quality leave open which is best."""
    if metric.name != metrics.QUALITY_SCORE:
        return False
    intervals = [
        (candidate.metrics[metrics.QUALITY_LOW], candidate.metrics[metrics.QUALITY_HIGH])
        for candidate in report.candidates
        if metrics.QUALITY_LOW in candidate.metrics and metrics.QUALITY_HIGH in candidate.metrics
    ]
    highest = max((low for low, _ in intervals), default=0.0)
    return sum(high >= highest for _, high in intervals) > 1


def baseline(report: Report) -> int:
    """Column that the answers are compared with: the incumbent, else the transformers variant, else
    the first.
    """
    for wanted in ("incumbent", "transformers"):
        for index, candidate in enumerate(report.candidates):
            if wanted in (candidate.role, candidate.variant) and candidate.quality.items:
                return index
    return 0


def differences(reference: str, answer: str) -> str:
    """The answer as HTML with the words marked that the reference does not have there."""
    ours, theirs = re.findall(r"\s+|\S+", answer), re.findall(r"\s+|\S+", reference)
    marked = []
    for kind, _, _, start, stop in difflib.SequenceMatcher(
        None, theirs, ours, autojunk=False
    ).get_opcodes():
        piece = "".join(ours[start:stop])
        if kind in ("replace", "insert") and (words := piece.strip()):
            before, after = piece[: piece.index(words)], piece[piece.index(words) + len(words) :]
            marked.append(
                f"{html.escape(before)}<mark>{html.escape(words)}</mark>{html.escape(after)}"
            )
        else:
            marked.append(html.escape(piece))
    return "".join(marked)


def side_by_side(report: Report) -> list[dict[str, Any]]:
    """One entry an item: the question, what each candidate said, and how it compares with the
    baseline.
    """
    base = baseline(report)
    by_candidate: list[dict[str, ItemResult]] = [
        {item.id: item for item in candidate.quality.items} for candidate in report.candidates
    ]
    questions = report.pack.get("questions", {})
    entries = []
    for identity in dict.fromkeys(item.id for items in by_candidate for item in items.values()):
        answers = [items.get(identity) for items in by_candidate]
        known = next(answer for answer in answers if answer is not None)
        reference = answers[base]
        kinds = set()
        for index, answer in enumerate(answers):
            if answer is None or reference is None or index == base:
                continue
            if answer.score < reference.score:
                kinds.add("regression")
            if answer.score > reference.score:
                kinds.add("improvement")
            if answer.answer != reference.answer:
                kinds.add("different")
        if any(answer is not None and answer.score < 1 for answer in answers):
            kinds.add("failed")
        columns: list[dict[str, object] | None] = []
        for index, answer in enumerate(answers):
            if answer is None:
                columns.append(None)
                continue
            if reference is None or index == base:
                shown = html.escape(answer.answer)
            else:
                shown = differences(reference.answer, answer.answer)
            columns.append({"item": answer, "html": shown})
        entries.append(
            {
                "id": identity,
                "skill": known.tags[0],
                "kinds": sorted(kinds),
                "messages": questions.get(identity, []),
                "columns": columns,
            }
        )
    return entries


def matrix(report: Report) -> list[dict[str, Any]]:
    """Rows of the conformance matrix."""
    by_candidate = [
        {row.name: row for row in candidate.conformance.rows} for candidate in report.candidates
    ]
    names = dict.fromkeys(name for rows in by_candidate for name in rows)
    return [{"name": name, "cells": [rows.get(name) for rows in by_candidate]} for name in names]


def summary(candidate: CandidateReport) -> str:
    """The verdict in one sentence."""
    if candidate.failure is not None:
        return candidate.failure.reason
    open_gates = [gate for gate in candidate.verdict.gates if gate.passed is not True]
    if not open_gates:
        return f"All {len(candidate.verdict.gates)} gates passed."
    return "; ".join(f"{gate.name}: {gate.reason}" for gate in open_gates)


def render(
    report: Report, drawn: Mapping[str, Figure], policy: PromotionConfig | None = None
) -> str:
    """The page as one HTML document.

    Args:
        drawn: pictures by name.
        policy: whose profile chooses between the versions that passed; None is the default one.
    """
    environment = Environment(
        loader=FileSystemLoader(TEMPLATE.parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["safe_html"] = Markup
    entries = side_by_side(report)
    return environment.get_template(TEMPLATE.name).render(
        report=report,
        advice=recommend(report, policy or PromotionConfig()),
        names=labels(report),
        decisions=DECISIONS,
        headlines=[headlines(candidate) for candidate in report.candidates],
        summaries=[summary(candidate) for candidate in report.candidates],
        rows=comparison(report),
        pictures=[
            {
                "name": name,
                "title": plots.PICTURES[name].title,
                "text": plots.PICTURES[name].text,
                "svg": Markup(figures.svg(figure, name, plots.PICTURES[name].text)),
            }
            for name, figure in drawn.items()
        ],
        matrix=matrix(report),
        entries=entries,
        base=baseline(report),
        at_once=max(
            (candidate.quality.concurrent_items for candidate in report.candidates), default=1
        ),
        skills=sorted({entry["skill"] for entry in entries}),
        counts={
            kind: sum(kind in entry["kinds"] for entry in entries)
            for kind in ("regression", "improvement", "different", "failed")
        },
    )


def write(report: Report, workdir: Path, policy: PromotionConfig | None = None) -> None:
    """Write ``report.html`` and ``pictures/*.png`` into ``workdir``; ``policy`` as for
    :func:`render`.
    """
    drawn = plots.draw(report)
    (workdir / "report.html").write_text(render(report, drawn, policy), encoding="utf-8")
    folder = workdir / "pictures"
    folder.mkdir(exist_ok=True)
    for name, figure in drawn.items():
        figures.png(figure, folder / f"{name}.png")
