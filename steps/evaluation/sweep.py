"""Several ONNX builds of one checkpoint side by side: one table, one Pareto picture of fidelity,
speed and size.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from rich.text import Text

from steps.core import screen
from steps.evaluation import metrics
from steps.evaluation.metrics import METRICS
from steps.evaluation.presentation import figures
from steps.evaluation.presentation.closing_table import FIRST_WIDTH, plain_table
from steps.evaluation.presentation.pareto import Point, scatter
from steps.evaluation.report import CandidateReport, Report

# heading in sweep.md, on the screen (with the unit below; empty is left out), field, metric
COLUMNS = (
    ("MB", "size\nMB", "size_bytes", metrics.SIZE),
    ("KL mean", "KL mean\nnats", "kl_mean", metrics.KL_MEAN),
    ("KL p99", "", "kl_p99", metrics.KL_P99),
    ("top-1", "top-1\n%", "top1_agreement", metrics.TOP1_AGREEMENT),
    ("perplexity", "", "perplexity", metrics.PERPLEXITY),
    ("score", "quality\n%", "score", metrics.QUALITY_SCORE),
    ("first token ms", "first\nms", "ttft_p50_s", metrics.TTFT_P50),
    ("decode tokens/s", "decode\ntok/s", "decode_tokens_per_second", metrics.DECODE),
    ("peak MB", "peak\nMB", "peak_rss_bytes", metrics.PEAK_RSS),
)


@dataclass(frozen=True)
class Build:
    """One row of a sweep; None where a figure was not measured."""

    name: str
    uri: str
    status: str  # evaluated, or why not
    size_bytes: float | None = None
    peak_rss_bytes: float | None = None
    kl_mean: float | None = None  # nats
    kl_p99: float | None = None  # nats
    top1_agreement: float | None = None
    perplexity: float | None = None
    score: float | None = None  # mean on the pack
    ttft_p50_s: float | None = None
    decode_tokens_per_second: float | None = None
    on_front: bool = False


def rows(report: Report, names: Mapping[str, str], failed: Mapping[str, str]) -> list[Build]:
    """A row a build, the checkpoint first, each marked that no other beats in size, fidelity and
    speed at once.

    Args:
        report: of one evaluation of the checkpoint's variant and all builds.
        names: model URI to the build's name.
        failed: builds that could not be made, with the reason.
    """
    builds = [
        _row(candidate, names.get(candidate.uri, candidate.variant))
        for candidate in report.candidates
    ]
    # what was not measured comes last
    builds.sort(key=lambda build: (build.kl_mean is None, build.kl_mean or 0.0))
    front = _front(builds)
    marked = [replace(build, on_front=build.name in front) for build in builds]
    return marked + [Build(name, "", reason) for name, reason in failed.items()]


def _row(candidate: CandidateReport, name: str) -> Build:
    measured: dict[str, Any] = {
        field: candidate.metrics.get(metric) for _, _, field, metric in COLUMNS
    }
    if candidate.variant == "transformers" and candidate.failure is None:
        measured["kl_mean"] = 0.0  # it is the checkpoint
    status = candidate.status if candidate.failure is None else candidate.failure.reason
    return Build(name=name, uri=candidate.uri, status=status, **measured)


def _front(builds: Sequence[Build]) -> set[str]:
    """Names of the builds that nothing beats in size, KL and decode speed at once."""
    points = {
        build.name: (build.size_bytes, build.kl_mean, -build.decode_tokens_per_second)
        for build in builds
        if build.size_bytes is not None
        and build.kl_mean is not None
        and build.decode_tokens_per_second is not None
    }
    return {
        name
        for name, point in points.items()
        if not any(
            other != point
            and all(theirs <= ours for theirs, ours in zip(other, point, strict=True))
            for other in points.values()
        )
    }


def markdown(builds: Sequence[Build]) -> str:
    """The table for people."""
    headings = ["build", *(heading for heading, *_ in COLUMNS), "front"]
    lines = [headings, ["---"] * len(headings)]
    for build in builds:
        status = "" if build.status == "evaluated" else f" ({build.status[:80]})"
        cells = [_cell(build, field, metric, "") for _, _, field, metric in COLUMNS]
        lines.append([build.name + status, *cells, "yes" if build.on_front else ""])
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _cell(build: Build, field: str, metric: str, without: str) -> str:
    value = getattr(build, field)
    return without if value is None else METRICS[metric].text(value)


def show(builds: Sequence[Build]) -> None:
    """Print the table in 80 columns; `sweep.md` has the other figures, too."""
    table = plain_table()
    table.add_column("build", overflow="fold", min_width=FIRST_WIDTH)
    shown = [column for column in COLUMNS if column[1]]
    for _, heading, _, _ in shown:
        table.add_column(heading, justify="right")
    table.add_column("front")
    for build in builds:
        cells = [_cell(build, field, metric, "-") for _, _, field, metric in shown]
        table.add_row(Text(build.name), *cells, "yes" if build.on_front else "")
    console = screen.console()
    console.print(table, "")
    console.print("front: no other build is smaller, nearer to the checkpoint and faster at once")
    for build in builds:
        if build.status != "evaluated":
            console.print(f"{build.name}: {build.status}", markup=False)


def write(builds: Sequence[Build], workdir: Path) -> None:
    """Write ``sweep.json``, ``sweep.md``, ``sweep.png`` and ``sweep.svg`` into ``workdir``."""
    (workdir / "sweep.json").write_text(
        json.dumps([asdict(build) for build in builds], indent=1) + "\n", encoding="utf-8"
    )
    (workdir / "sweep.md").write_text(markdown(builds), encoding="utf-8")
    points = [
        Point(build.name, index, build.decode_tokens_per_second, build.kl_mean, build.size_bytes)
        for index, build in enumerate(builds)
        if build.decode_tokens_per_second is not None
        and build.kl_mean is not None
        and build.size_bytes is not None
    ]
    figure = scatter(points, "mean KL to the checkpoint, nats", best_high=False)
    if figure is not None:
        figures.png(figure, workdir / "sweep.png")
        (workdir / "sweep.svg").write_text(
            figures.svg(figure, "sweep", "Builds by decode speed, fidelity and size"),
            encoding="utf-8",
        )
