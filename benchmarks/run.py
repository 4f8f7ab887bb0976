"""Measure everything the ONNX variant promises, side by side, in one call.

python -m benchmarks.run                       # all lines, 9 pairs each, into \
    benchmarks/results.json
python -m benchmarks.run --only second_turn    # one line
python -m benchmarks.run --short               # one pair each: only to see that it works
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.lines import LINES
from benchmarks.llama_cpp_peer import NotInstalledError
from benchmarks.machine import describe
from benchmarks.measure import Comparison, Spread
from benchmarks.subjects import Subjects

RESULTS = Path(__file__).with_name("results.json")
PAIRS = 9


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the lines; the exit code is 0 also where a busy machine misses a bar."""
    # as the transformers variant sets it where it is the first to import torch
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.run",
        description="Measure the ONNX variant side by side with its peers.",
    )
    parser.add_argument(
        "--only",
        action="append",
        choices=sorted(LINES),
        help="a line to run; may be given again; default all",
    )
    parser.add_argument(
        "--pairs", type=int, default=PAIRS, help="pairs a line takes (default %(default)s)"
    )
    parser.add_argument(
        "--onnx", help="the ONNX build, a config of conf/onnx/ (default: the embedded model's own)"
    )
    parser.add_argument(
        "--short",
        action="store_true",
        help="one pair a line, and no results.json: only to see that it works",
    )
    parser.add_argument(
        "--output",
        type=Path,
        default=RESULTS,
        help="where the figures go (default benchmarks/results.json)",
    )
    chosen = parser.parse_args(arguments)
    console = Console()
    pairs = 1 if chosen.short else chosen.pairs
    names = chosen.only or list(LINES)
    lines: list[dict[str, Any]] = []
    shown: list[Comparison] = []
    left_out: dict[str, str] = {}
    subjects = Subjects(chosen.onnx)
    for name in names:
        # how busy the machine is changes from line to line
        started, machine = time.monotonic(), describe()
        try:
            made = LINES[name](subjects, pairs)
        except NotInstalledError as error:
            left_out[name] = str(error)
        else:
            shown += made
            machine["onnx_build"] = subjects.build
            lines += [
                {"name": name, **asdict(line), "met": line.met, "pairs": pairs, "machine": machine}
                for line in made
            ]
        finally:
            subjects.release()
        console.log(f"{name}: {time.monotonic() - started:.0f} s")
        if not chosen.short:
            write_results(chosen.output, lines, left_out)
    subjects.close()
    console.print(_table(shown, subjects.build))
    for name, reason in left_out.items():
        console.print(f"left out: {name}, as {reason}")
    return 0


def write_results(file: Path, lines: Sequence[dict[str, Any]], left_out: dict[str, str]) -> None:
    """Write what was measured; lines of an earlier call that were not measured now stay, each with
    the machine it was measured on.
    """
    before = json.loads(file.read_text("utf-8")) if file.exists() else {"lines": [], "left_out": {}}
    measured = {line["name"] for line in lines}
    written = [line for line in before["lines"] if line["name"] not in measured] + list(lines)
    have = {line["name"] for line in written}
    reasons = {
        name: reason
        for name, reason in {**before["left_out"], **left_out}.items()
        if name not in have
    }
    file.write_text(json.dumps({"lines": written, "left_out": reasons}, indent=1) + "\n", "utf-8")


def _table(comparisons: list[Comparison], build: str) -> Table:
    table = Table(title=f"ONNX build {build}: medians with quartiles")
    for column in ("figure", "ours", "against", "theirs", "ratio", "bar", ""):
        table.add_column(column)
    for line in comparisons:
        bar = f"{'≤' if line.at_most else '≥'} {line.bar:g}"
        verdict = "met" if line.met else "missed"
        table.add_row(
            line.figure,
            _shown(line.ours, line.unit),
            line.against,
            _shown(line.theirs, line.unit),
            _shown(line.ratio, ""),
            bar,
            verdict,
        )
    return table


def _shown(spread: Spread, unit: str) -> str:
    return f"{spread.median:.3g}{' ' if unit else ''}{unit} ({spread.low:.3g}-{spread.high:.3g})"


if __name__ == "__main__":
    sys.exit(main())
