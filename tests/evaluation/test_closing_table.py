"""What is printed at the end of an evaluation: 80 columns without a terminal, every figure once."""

from dataclasses import replace

import pytest

from steps.config.promotion import PromotionConfig
from steps.evaluation.presentation import closing_table
from steps.evaluation.report import Gate, Verdict
from tests.evaluation import sample

REPORT = sample.report(incumbent=False)


def test_a_log_has_eighty_columns(capsys: pytest.CaptureFixture[str]) -> None:
    slow, fast, dead = REPORT.candidates
    gates = tuple(Gate(name, 0, 1, False, "no") for name in ("fidelity past the borders", "memory"))
    held = replace(fast, verdict=Verdict("hold", gates))
    closing_table.show(replace(REPORT, candidates=(slow, held, dead)), PromotionConfig())
    printed = capsys.readouterr().out
    assert max(map(len, printed.splitlines())) <= 80
    share = 100 * slow.metrics["quality/score"]
    assert printed.count(f"{share:.1f} % of 183") == 1
    for words in ("transformers", "11.0", "0.182 s", "1,100 MB", "first token"):
        assert words in printed
    assert (
        "fidelity" in printed and "past the" in printed and "borders," in printed
    )  # folded, not cut


def test_figures_that_are_missing_are_dashes() -> None:
    assert closing_table.figures({}) == ["-"] * 4
    assert closing_table.figures({"quality/score": 0.4531})[0] == "45.3 %"
    known = {"quality/score": 0.453125, "quality/items": 128.0}
    assert closing_table.figures(known)[0] == "45.3 % of 128"
    assert closing_table.verdict("insufficient_evidence", ["quality"]) == "undecided: quality"


def test_a_busy_machine_is_said_once(capsys: pytest.CaptureFixture[str]) -> None:
    busy = REPORT.machine | {"load": {"words": "other processes took 40 % of the CPU time"}}
    for count in (1, 2):  # with one version there is nothing to choose
        candidates = tuple(
            replace(one, verdict=Verdict("promote")) for one in REPORT.candidates[:count]
        )
        report = replace(REPORT, machine=busy, candidates=candidates)
        closing_table.advise(report, PromotionConfig())
        assert capsys.readouterr().out.replace("\n", " ").count("took 40 %") == 1
