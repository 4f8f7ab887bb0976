"""Measure everything that is promised, side by side, in one call.

python -m benchmarks.run                       # all lines, 9 pairs each, into \
    benchmarks/results.json
python -m benchmarks.run --only second_turn    # one line
python -m benchmarks.run --short               # little of each: only to see that it works
"""

import argparse
import json
import os
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.lines import LINES
from benchmarks.machine import describe
from benchmarks.measure import SHORT, Comparison, Effort, LeftOut, Row, Spread
from benchmarks.subjects import PEERS, Subjects

RESULTS = Path(__file__).with_name("results.json")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the lines; the exit code is 0 also where a busy machine misses a bar."""
    # as the transformers variant sets it where it is the first to import torch
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.run",
        description="Measure the logged models side by side with their peers.",
    )
    parser.add_argument(
        "--only",
        action="append",
        choices=sorted(LINES),
        help="a line to run; may be given again; default all",
    )
    parser.add_argument(
        "--pairs",
        type=int,
        default=Effort.pairs,
        help="pairs a line takes, and three times the rounds of clients (default %(default)s)",
    )
    parser.add_argument(
        "--onnx", help="the ONNX build, a config of conf/onnx/ (default: the embedded model's own)"
    )
    parser.add_argument(
        "--peers",
        type=Path,
        default=PEERS,
        help="the peers' environment, which make peers makes (default %(default)s)",
    )
    parser.add_argument(
        "--short",
        action="store_true",
        help="one pair a line, no verdicts and no results.json: only to see that it works",
    )
    parser.add_argument(
        "--output",
        type=Path,
        default=RESULTS,
        help="where the figures go (default benchmarks/results.json)",
    )
    chosen = parser.parse_args(arguments)
    # rows are not broken to a terminal's width where stdout is not a terminal
    console = Console(width=None if sys.stdout.isatty() else 170)
    effort = SHORT if chosen.short else replace(Effort(), pairs=chosen.pairs)
    effort = replace(effort, rounds=max(1, effort.pairs // 3))
    names = chosen.only or list(LINES)
    lines: list[dict[str, Any]] = []
    shown: list[Row] = []
    subjects = Subjects(chosen.onnx, chosen.peers)
    try:
        for name in names:
            # how busy the machine is changes from line to line
            started, machine = time.monotonic(), describe()
            try:
                rows = LINES[name](subjects, effort)
            finally:
                subjects.release()
            shown += rows
            machine |= {"onnx_build": subjects.build, "peers": dict(subjects.peers_about)}
            lines += [_recorded(name, row, effort.pairs, machine) for row in rows]
            console.log(f"{name}: {time.monotonic() - started:.0f} s")
            if not chosen.short:
                write_results(chosen.output, lines)
        console.print(_table(shown, describe(), subjects.build, verdicts=not chosen.short))
    finally:
        subjects.close()
    return 0


def _recorded(name: str, row: Row, pairs: int, machine: dict[str, Any]) -> dict[str, Any]:
    """A row as it is kept in results.json."""
    if isinstance(row, LeftOut):
        return {"name": name, **asdict(row)}
    return {"name": name, **asdict(row), "met": row.met, "pairs": pairs, "machine": machine}


def write_results(file: Path, lines: Sequence[dict[str, Any]]) -> None:
    """Write what was measured. Rows of an earlier call that were not measured now stay, each with
    the machine it was measured on; rows of lines that do not exist any more are removed.
    """

    def key(line: dict[str, Any]) -> tuple[str, ...]:
        return line["name"], line["figure"], line["against"]

    before = json.loads(file.read_text("utf-8"))["lines"] if file.exists() else []
    ran = {line["name"] for line in lines}
    left_out = {key(line) for line in lines if "reason" in line}
    kept = [
        line
        for line in before
        if (line["name"] in LINES and line["name"] not in ran)
        or ("reason" not in line and key(line) in left_out)
    ]
    have = {key(line) for line in kept}
    written = kept + [line for line in lines if key(line) not in have]
    file.write_text(json.dumps({"lines": written}, indent=1) + "\n", "utf-8")


def _table(rows: list[Row], machine: dict[str, Any], build: str, *, verdicts: bool) -> Table:
    """The rows; without verdicts where too little was measured for them."""
    title = "medians with quartiles" if verdicts else "too short for claims"
    processor = "{processors} processors, {processor}, {instruction_set}".format_map(machine)
    table = Table(title=title, caption=f"{processor}; ONNX build {build}")
    for column in ("figure", "ours", "against", "theirs", "ratio", "bar", ""):
        table.add_column(column)
    for row in rows:
        if isinstance(row, LeftOut):
            table.add_row(row.figure, "", row.against, row.reason)
            continue
        table.add_row(
            row.figure,
            _shown(row.ours, row.unit),
            row.against,
            _shown(row.theirs, row.unit),
            _shown(row.ratio, ""),
            _bar(row),
            _verdict(row) if verdicts else "",
        )
    return table


def _bar(row: Comparison) -> str:
    return "" if row.bar is None else f"{'≤' if row.at_most else '≥'} {row.bar:g}"


def _verdict(row: Comparison) -> str:
    return "" if row.met is None else "met" if row.met else "missed"


def _shown(spread: Spread, unit: str) -> str:
    return f"{spread.median:.3g}{' ' if unit else ''}{unit} ({spread.low:.3g}-{spread.high:.3g})"


if __name__ == "__main__":
    # a terminated call ends its servers and peers too
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    sys.exit(main())
