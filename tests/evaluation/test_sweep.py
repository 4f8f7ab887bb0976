"""A sweep's table: order, Pareto front, and builds that failed."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from steps.evaluation import packs, sweep
from steps.evaluation.report import Failure, Report
from tests.evaluation import sample

SMOKE = packs.load("smoke")


def report_of(*figures: tuple[float, float, float]) -> tuple[Report, dict[str, str]]:
    whole = sample.report("smoke", incumbent=False)
    candidates = [whole.candidates[0]]
    names = {candidates[0].uri: "checkpoint"}
    for number, (kl, speed, size) in enumerate(figures):
        build = sample.candidate(
            SMOKE, variant="onnx", share=0.5, speed=speed, seed=20 + number, kl=kl
        )
        candidates.append(replace(build, metrics=build.metrics | {"size/bytes": size}))
        names[build.uri] = f"build{number}"
    return replace(whole, candidates=tuple(candidates)), names


def test_rows_are_ordered_and_the_front_is_marked(tmp_path: Path) -> None:
    report, names = report_of(
        (0.4, 100, 9e7), (0.01, 70, 2.6e8), (0.5, 90, 9.5e7), (0.2, 85, 1.1e8)
    )
    rows = sweep.rows(report, names, {"odd": "not built: no kernel"})
    assert [row.name for row in rows] == [
        "checkpoint",
        "build1",
        "build3",
        "build0",
        "build2",
        "odd",
    ]
    assert {row.name for row in rows if row.on_front} == {
        "checkpoint",
        "build1",
        "build3",
        "build0",
    }
    sweep.write(rows, tmp_path)
    assert (tmp_path / "sweep.png").read_bytes().startswith(b"\x89PNG") and "<svg" in (
        tmp_path / "sweep.svg"
    ).read_text()
    table = (tmp_path / "sweep.md").read_text()
    assert "| build1 | 260 | 0.0100 |" in table and "odd (not built: no kernel)" in table
    assert json.loads((tmp_path / "sweep.json").read_text())[1]["kl_mean"] == 0.01


def test_what_was_not_measured_comes_last_and_a_failed_checkpoint_has_no_figure() -> None:
    report, names = report_of((0.4, 100, 9e7), (0.01, 70, 2.6e8))
    checkpoint, first, second = report.candidates
    without = replace(
        first,
        metrics={
            name: value for name, value in first.metrics.items() if not name.startswith("fidelity")
        },
    )
    rows = sweep.rows(replace(report, candidates=(without, checkpoint, second)), names, {})
    assert [row.name for row in rows] == ["checkpoint", "build1", "build0"]
    dead = replace(
        checkpoint, status="failed", failure=Failure("load: out of memory", ""), metrics={}
    )
    rows = sweep.rows(replace(report, candidates=(dead, first, second)), names, {})
    assert [row.name for row in rows] == ["build1", "build0", "checkpoint"] and rows[
        -1
    ].kl_mean is None


def test_the_printed_table_has_eighty_columns(capsys: pytest.CaptureFixture[str]) -> None:
    report, names = report_of((0.4, 100, 9e7), (0.01, 70, 2.6e8))
    names = {uri: name.replace("build", "int4_block128_cpu_") for uri, name in names.items()}
    sweep.show(sweep.rows(report, names, {"odd": "not built: no kernel"}))
    printed = capsys.readouterr().out
    assert max(map(len, printed.splitlines())) <= 80
    for words in ("int4_block128_cpu_0", "0.4000", "tok/s", "odd: not built: no kernel"):
        assert words in printed
