"""Several ONNX builds of one checkpoint side by side: one table, one Pareto picture of fidelity,
speed and size.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from steps.evaluation import plots
from steps.evaluation.report import CandidateReport, Report


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
    found = [
        _row(candidate, names.get(candidate.uri, candidate.variant))
        for candidate in report.candidates
    ]
    # what was not measured comes last
    found.sort(key=lambda build: (build.kl_mean is None, build.kl_mean or 0.0))
    front = _front(found)
    marked = [Build(**{**asdict(build), "on_front": build.name in front}) for build in found]
    return marked + [Build(name, "", reason) for name, reason in failed.items()]


def _row(candidate: CandidateReport, name: str) -> Build:
    figure = candidate.metrics.get
    return Build(
        name=name,
        uri=candidate.uri,
        status=candidate.status if candidate.failure is None else candidate.failure.reason,
        size_bytes=figure("size/bytes"),
        peak_rss_bytes=figure("memory/peak_rss_bytes"),
        kl_mean=(
            0.0
            if candidate.variant == "transformers" and candidate.failure is None
            else figure("fidelity/kl_mean")
        ),
        kl_p99=figure("fidelity/kl_p99"),
        top1_agreement=figure("fidelity/top1_agreement"),
        perplexity=figure("fidelity/perplexity"),
        score=figure("quality/score"),
        ttft_p50_s=figure("speed/ttft_p50_s"),
        decode_tokens_per_second=figure("speed/decode_tokens_per_second"),
    )


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

    def text(value: float | None, factor: float = 1.0, digits: int = 0) -> str:
        return "" if value is None else f"{value * factor:,.{digits}f}"

    lines = [
        (
            "| build | MB | KL mean | KL p99 | top-1 | perplexity | score | first token ms | decode"
            " tokens/s | peak MB | front |"
        ),
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for build in builds:
        cells = (
            build.name if build.status == "evaluated" else f"{build.name} ({build.status[:80]})",
            text(build.size_bytes, 1e-6),
            text(build.kl_mean, 1, 4),
            text(build.kl_p99, 1, 3),
            text(build.top1_agreement, 100, 1),
            text(build.perplexity, 1, 2),
            text(build.score, 100, 1),
            text(build.ttft_p50_s, 1000),
            text(build.decode_tokens_per_second, 1, 1),
            text(build.peak_rss_bytes, 1e-6),
            "yes" if build.on_front else "",
        )
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def write(builds: Sequence[Build], workdir: Path) -> None:
    """Write ``sweep.json``, ``sweep.md``, ``sweep.png`` and ``sweep.svg`` into ``workdir``."""
    (workdir / "sweep.json").write_text(
        json.dumps([asdict(build) for build in builds], indent=1) + "\n", encoding="utf-8"
    )
    (workdir / "sweep.md").write_text(markdown(builds), encoding="utf-8")
    points = [
        (build.name, index, build.decode_tokens_per_second, build.kl_mean, build.size_bytes)
        for index, build in enumerate(builds)
        if build.decode_tokens_per_second is not None
        and build.kl_mean is not None
        and build.size_bytes is not None
    ]
    figure = plots.scatter(points, "mean KL to the checkpoint, nats", best_high=False)
    if figure is not None:
        plots.png(figure, workdir / "sweep.png")
        (workdir / "sweep.svg").write_text(
            plots.svg(figure, "sweep", "Builds by decode speed, fidelity and size"),
            encoding="utf-8",
        )
