"""What a user sees at the end: a table of at most 80 columns, and the same as Markdown."""

import textwrap
from collections.abc import Sequence

from steps.config import monitor as names
from steps.monitoring.figures import COUNT, Figure
from steps.monitoring.result import TOO_LITTLE, Monitoring
from steps.monitoring.samples import RATIO

WIDTH = 80  # columns
HEADINGS = ("", "live", "evidence", "interval", "band", "n", "")
STATES = {
    "within": "ok",
    "drifted": "DRIFT",
    "undecided": "open",
    "too_few": "few",
    "not_measured": "-",
}
SAID = {
    "drifted": "out of its band",
    "within": "within its bands, as far as there is enough to say",
    "undecided": "no drift is shown; intervals that cross the end of a band are open",
    TOO_LITTLE: "not enough requests to say",
}
NO_REQUESTS = "no sampled request, so nothing is said of the traffic"
SECONDS = (names.FIRST_TOKEN, names.INTER_TOKEN)


def text(found: Monitoring) -> str:
    """The table, what it is of, and what followed."""
    at = f" (@{found.alias})" if found.alias else ""
    evidence = found.evidence
    lines = [
        f"{found.uri}{at}: {SAID[found.state] if found.requests else NO_REQUESTS}",
        f"{found.requests} sampled requests from {_minute(found.since)} to"
        f" {_minute(found.created)} UTC",
        f"evidence {evidence.uri}, {evidence.items} items",
        f"served on {', '.join(found.processors) or _or_unknown(found.recorded.processor)}",
        f"evidence of {_or_unknown(evidence.processor)}",
        "",
        *_rows(found.figures),
        "",
        *_of_recorded(found),
        *(f"{figure.label}: {figure.why}" for figure in found.figures if _explained(figure)),
        *(f"drift: {figure.words}" for figure in found.drifted),
        *found.notes,
        *_followed(found),
    ]
    return "\n".join(line for long in lines for line in _wrapped(long))


def _or_unknown(processor: str) -> str:
    return processor or "an unknown processor"


def markdown(found: Monitoring) -> str:
    """The same for the run's page."""
    return f"# Monitoring of {found.uri}\n\n```\n{text(found)}\n```\n"


def _rows(figures: Sequence[Figure]) -> list[str]:
    cells = [HEADINGS, *(_row(figure) for figure in figures)]
    last = len(HEADINGS) - 1
    widths = [max(len(row[column]) for row in cells) for column in range(last + 1)]
    gap = "  " if sum(widths) + 2 * last <= WIDTH else " "
    return [
        gap.join(
            cell.ljust(width) if column in (0, last) else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in cells
    ]


def _row(figure: Figure) -> tuple[str, ...]:
    band = "-".join(_tested(figure, end) for end in _ends(figure))
    if figure.band_low is not None and figure.band_high is None:
        band = f">={band}"
    elif figure.band_high is not None and figure.band_low is None:
        band = f"<={band}"
    interval = ""
    if figure.tested is not None and figure.low is not None and figure.high is not None:
        interval = f"{_tested(figure, figure.low)}-{_tested(figure, figure.high)}"
        if figure.kind == RATIO:
            interval = f"{_tested(figure, figure.tested)}x ({interval})"
    return (
        figure.label,
        _plain(figure, figure.live),
        _plain(figure, figure.evidence),
        interval,
        band,
        str(figure.requests),
        STATES[figure.state],
    )


def _ends(figure: Figure) -> list[float]:
    return [end for end in (figure.band_low, figure.band_high) if end is not None]


def _plain(figure: Figure, value: float | None) -> str:
    if value is None:
        return ""
    if figure.name in SECONDS:
        return f"{value:.2f} s" if value >= 1 else f"{1000 * value:.3g} ms"
    return f"{value:.0f}" if figure.kind in (COUNT, RATIO) else f"{value:.1%}"


def _tested(figure: Figure, value: float) -> str:
    if figure.kind == RATIO:
        return f"{value:.2f}" if value < 10 else f"{value:.0f}"
    return f"{value:.0f}" if figure.kind == COUNT else f"{100 * value:.3g}%"


def _explained(figure: Figure) -> bool:
    return bool(figure.why) and figure.kind != COUNT


def _of_recorded(found: Monitoring) -> list[str]:
    recorded = found.recorded
    if recorded.skipped:
        return [recorded.skipped]
    lines = [
        f"recorded prompts: {recorded.equal} of {recorded.told} answers are the evidence's; on"
        f" {_or_unknown(recorded.processor)}"
    ]
    for answer in recorded.answers:
        if answer.equal is None:
            lines.append(f"  {answer.item}: {answer.error}")
        elif not answer.equal:
            lines.append(
                f"  {answer.item}: the first {answer.first_difference} of"
                f" {answer.characters} characters are the same"
            )
    return lines


def _followed(found: Monitoring) -> list[str]:
    followed = found.consequences
    lines = []
    if found.dry_run:
        lines.append("dry run: nothing was changed")
    if followed.tag:
        lines.append(f"tag: {followed.tag}")
    if followed.rollback:
        lines.append(f"rollback: {followed.rollback}")
    return lines


def _minute(moment: str) -> str:
    return moment[:16].replace("T", " ")


def _wrapped(line: str) -> list[str]:
    indent = " " * (len(line) - len(line.lstrip()) + 2)
    return textwrap.wrap(
        line, WIDTH, subsequent_indent=indent, break_on_hyphens=False, drop_whitespace=True
    ) or [""]
