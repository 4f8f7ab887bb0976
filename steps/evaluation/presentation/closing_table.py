"""The figures of versions as a table of 80 columns, and what an evaluation prints at its end."""

from collections.abc import Mapping, Sequence

from rich import box
from rich.table import Table

from steps.config.promotion import PromotionConfig
from steps.core import screen
from steps.evaluation import metrics
from steps.evaluation.presentation.labels import labels
from steps.evaluation.presentation.recommendation import recommend
from steps.evaluation.report import INSUFFICIENT, Report

# heading, metric, format, factor
SCORES = (
    ("quality", metrics.QUALITY_SCORE, "{:.1f} %", 100),
    ("tokens/s", metrics.DECODE, "{:.1f}", 1),
    ("first token", metrics.TTFT_P50, "{:.3f} s", 1),
    ("memory", metrics.PEAK_RSS, "{:,.0f} MB", 1e-6),
)
FIRST_WIDTH = 17  # columns that what a row is of has at least: a folded alias is hard to read
VERDICT_WIDTH = 12  # columns; names of gates go on below
UNDECIDED = "undecided"  # a verdict's word that fits a column


def figures(measured: Mapping[str, float]) -> list[str]:
    """The table's figures, in the order of ``SCORES``; a dash where the report has none. Quality
    says of how many items it is.
    """
    cells = []
    for _, name, form, factor in SCORES:
        value, items = measured.get(name), measured.get(metrics.QUALITY_ITEMS)
        text = "-" if value is None else form.format(factor * value)
        if name == metrics.QUALITY_SCORE and value is not None and items:
            text += f" of {items:.0f}"
        cells.append(text)
    return cells


def verdict(decision: str, failed_gates: Sequence[str]) -> str:
    """A verdict and the gates that were not passed."""
    word = UNDECIDED if decision == INSUFFICIENT else decision.replace("_", " ")
    return word + (f": {', '.join(failed_gates)}" if failed_gates else "")


def plain_table(title: str | None = None) -> Table:
    """An empty table whose columns are two spaces apart, with a line below the headings."""
    return Table(
        title=title,
        title_justify="left",
        title_style="bold",
        box=box.SIMPLE_HEAD,
        show_edge=False,
        pad_edge=False,
        padding=(0, 1, 0, 0),
    )


def table(first: str, title: str | None = None, *, measured: bool = True) -> Table:
    """An empty table: a column ``first`` for what a row is of, the verdict, and the figures, where
    there are any.
    """
    made = plain_table(title)
    made.add_column(first, overflow="fold", min_width=FIRST_WIDTH)
    made.add_column("verdict", overflow="fold", max_width=VERDICT_WIDTH)
    for heading, *_ in SCORES if measured else ():
        made.add_column(heading, justify="right", no_wrap=True)
    return made


def show(report: Report, policy: PromotionConfig) -> None:
    """Print what was measured of each candidate."""
    made = table("candidate", report.registered_name)
    for name, candidate in zip(labels(report), report.candidates, strict=True):
        failed = [gate.name for gate in candidate.failed_gates]
        made.add_row(name, verdict(candidate.verdict.decision, failed), *figures(candidate.metrics))
    screen.console().print(made, "")
    advise(report, policy)


def advise(report: Report, policy: PromotionConfig) -> None:
    """Print which version to use, and why."""
    console = screen.console(widest=screen.WIDTH)
    sentence = recommend(report, policy).sentence
    console.print(sentence, markup=False)
    if report.busy and report.busy not in sentence:
        console.print(f"Speed was measured while {report.busy}.", markup=False)
