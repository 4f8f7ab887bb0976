"""``report.html``: one self-contained file, no network, light and dark, wide and narrow, by mouse
and by keyboard.
"""

import difflib
import html
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from steps.evaluation import plots
from steps.evaluation.report import CandidateReport, ItemResult, Report

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TEMPLATE = Path(__file__).with_name("templates") / "report.html.j2"
DECISIONS = {"promote": "Promote", "hold": "Hold", "insufficient_evidence": "Insufficient evidence"}

# metric, label, unit, factor, digits, and whether higher is better (None: neither)
ROWS: tuple[tuple[str, str, str, str, float, int, bool | None], ...] = (
    ("Quality", "quality/score", "mean score", "%", 100, 1, True),
    ("Fidelity", "fidelity/kl_mean", "KL to the checkpoint, mean", "nats", 1, 4, False),
    ("Fidelity", "fidelity/kl_p99", "KL to the checkpoint, p99", "nats", 1, 3, False),
    ("Fidelity", "fidelity/top1_agreement", "same most likely token", "%", 100, 1, True),
    ("Fidelity", "fidelity/perplexity", "perplexity", "", 1, 2, False),
    (
        "Fidelity",
        "fidelity/first_divergence_median",
        "greedy text identical for",
        "tokens",
        1,
        0,
        True,
    ),
    ("Speed", "speed/load_s", "load, until ready, once", "s", 1, 1, False),
    ("Speed", "speed/prompt_tokens", "short prompt", "tokens", 1, 0, None),
    ("Speed", "speed/prompt_tokens_long", "long prompt", "tokens", 1, 0, None),
    ("Speed", "speed/ttft_p50_s", "first token, short prompt, p50", "ms", 1000, 0, False),
    ("Speed", "speed/ttft_p95_s", "first token, short prompt, p95", "ms", 1000, 0, False),
    ("Speed", "speed/ttft_long_p50_s", "first token, long prompt, p50", "ms", 1000, 0, False),
    ("Speed", "speed/itl_p50_s", "between tokens, p50", "ms", 1000, 1, False),
    ("Speed", "speed/itl_p95_s", "between tokens, p95", "ms", 1000, 1, False),
    ("Speed", "speed/itl_p99_s", "between tokens, p99", "ms", 1000, 1, False),
    ("Speed", "speed/decode_tokens_per_second", "decode", "tokens/s", 1, 1, True),
    ("Speed", "speed/throughput_1", "throughput, 1 request", "tokens/s", 1, 1, True),
    ("Speed", "speed/throughput_4", "throughput, 4 at once", "tokens/s", 1, 1, True),
    ("Speed", "speed/throughput_8", "throughput, 8 at once", "tokens/s", 1, 1, True),
    ("Cost", "memory/peak_rss_bytes", "peak resident memory", "MB", 1e-6, 0, False),
    ("Cost", "size/bytes", "size on disk", "MB", 1e-6, 0, False),
    ("Contract", "conformance/passed", "rows of the chat contract held", "", 1, 0, True),
)
SPREAD = {  # metrics whose spread over the rounds is known
    "speed/decode_tokens_per_second": (
        "speed/decode_tokens_per_second_min",
        "speed/decode_tokens_per_second_max",
    ),
    "quality/score": ("quality/score_low", "quality/score_high"),
    **{
        f"speed/{name}_p50_s": (f"speed/{name}_min_s", f"speed/{name}_max_s")
        for name in ("ttft", "ttft_long", "itl")
    },
    **{
        f"speed/throughput_{n}": (f"speed/throughput_{n}_min", f"speed/throughput_{n}_max")
        for n in (1, 4, 8)
    },
}


OUT_OF = {"conformance/passed": "conformance/total"}


@dataclass(frozen=True)
class Cell:
    """One figure of the comparison table."""

    text: str
    spread: str
    best: bool
    share: float  # length of the bar, 0 to 1


def _number(value: float, factor: float, digits: int) -> str:
    scaled = value * factor
    if scaled and digits and abs(scaled) < 10**-digits:
        return f"{scaled:.1e}"
    return f"{scaled:,.{digits}f}"


def _lm_eval_rows(report: Report) -> list[tuple[str, str, str, str, float, int, bool | None]]:
    """A row a task and metric; which way is better, only the task knows."""
    names = sorted(
        {
            name
            for candidate in report.candidates
            for name in candidate.metrics
            if name.startswith("lm_eval/")
        }
    )
    return [
        ("lm-eval", name, name.removeprefix("lm_eval/").replace("/", ", "), "", 1, 3, None)
        for name in names
    ]


def comparison(report: Report) -> list[dict[str, Any]]:
    """Rows of the comparison table that at least one candidate has a figure for."""
    rows: list[dict[str, Any]] = []
    for group, metric, name, unit, factor, digits, high in (*ROWS, *_lm_eval_rows(report)):
        values = [candidate.metrics.get(metric) for candidate in report.candidates]
        known = [value for value in values if value is not None]
        if not known:
            continue
        best = max(known) if high else min(known)
        largest = max(known) or 1.0
        cells: list[Cell | None] = []
        for candidate, value in zip(report.candidates, values, strict=True):
            if value is None:
                cells.append(None)
                continue
            spread = ""
            if metric in SPREAD and all(each in candidate.metrics for each in SPREAD[metric]):
                low, top = (
                    _number(candidate.metrics[each], factor, digits) for each in SPREAD[metric]
                )
                spread = f"{low} to {top}"
            elif metric in OUT_OF and OUT_OF[metric] in candidate.metrics:
                spread = f"of {candidate.metrics[OUT_OF[metric]]:.0f}"
            leads = high is not None and value == best and min(known) != max(known)
            cells.append(Cell(_number(value, factor, digits), spread, leads, value / largest))
        rows.append({"group": group, "name": name, "unit": unit, "cells": cells})
    return rows


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


def render(report: Report, figures: "dict[str, Figure]") -> str:
    """The page as one HTML document."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

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
        names=plots.labels(report),
        decisions=DECISIONS,
        summaries=[summary(candidate) for candidate in report.candidates],
        rows=comparison(report),
        pictures=[
            {
                "name": name,
                "title": plots.PICTURES[name][1],
                "text": plots.PICTURES[name][2],
                "svg": Markup(plots.svg(figure, name, plots.PICTURES[name][2])),
            }
            for name, figure in figures.items()
        ],
        matrix=matrix(report),
        entries=entries,
        base=baseline(report),
        skills=sorted({entry["skill"] for entry in entries}),
        counts={
            kind: sum(kind in entry["kinds"] for entry in entries)
            for kind in ("regression", "improvement", "different", "failed")
        },
    )


def write(report: Report, workdir: Path) -> None:
    """Write ``report.html`` and ``pictures/*.png`` into ``workdir``."""
    figures = plots.draw(report)
    (workdir / "report.html").write_text(render(report, figures), encoding="utf-8")
    folder = workdir / "pictures"
    folder.mkdir(exist_ok=True)
    for name, figure in figures.items():
        plots.png(figure, folder / f"{name}.png")
