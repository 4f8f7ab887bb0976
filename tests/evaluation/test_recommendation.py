"""The first sentence of a report, in each case that there is."""

from dataclasses import replace

import pytest

from steps.config.promotion import PromotionConfig, WeightsConfig
from steps.evaluation import statistics
from steps.evaluation.presentation import html_report
from steps.evaluation.presentation.recommendation import Recommendation, recommend, told_apart
from steps.evaluation.report import CandidateReport, Gate, Report, Verdict
from tests.evaluation import sample

BASE = sample.report("smoke", incumbent=False)
SLOW, FAST, _ = BASE.candidates
QUICK = PromotionConfig(profile="edge", weights=WeightsConfig(1, 1, 0, 0))
# the faster one wins, and would not with its times doubled
CLOSE = PromotionConfig(profile="edge", weights=WeightsConfig(10, 1, 0, 0))
CAREFUL = PromotionConfig(profile="quality", weights=WeightsConfig(1000, 0, 1, 0))


def judged(candidate: CandidateReport, decision: str = "promote") -> CandidateReport:
    gates = {
        "promote": (),
        "hold": (Gate("fidelity", 0.4, 0.25, False, "too far"),),
        "insufficient_evidence": (Gate("quality", 0.2, 0.15, None, "too few"),),
    }
    return replace(candidate, verdict=Verdict(decision, gates[decision]))


def scored(candidate: CandidateReport, passed: int) -> CandidateReport:
    """The candidate with its first items passed, and no others."""
    items = tuple(
        replace(item, score=float(index < passed))
        for index, item in enumerate(candidate.quality.items)
    )
    return replace(
        candidate,
        quality=replace(candidate.quality, items=items),
        metrics=candidate.metrics | {"quality/score": passed / len(items)},
    )


def of(*candidates: CandidateReport, busy: str = "", policy: PromotionConfig) -> Recommendation:
    load = {"load": {"words": busy}} if busy else {}
    report: Report = replace(BASE, candidates=candidates, machine=BASE.machine | load)
    return recommend(report, policy)


def test_the_faster_of_two_that_cannot_be_told_apart() -> None:
    both = (scored(judged(SLOW), 12), scored(judged(FAST), 10))
    found = of(*both, policy=QUICK)
    assert found.index == 1
    assert found.sentence == (
        "Use ONNX: 8.7 times as fast as transformers, quality not distinguishable (62.5 % against"
        " 75.0 % of 16 items: 0 won, 2 lost, sign test p = 0.5); chosen by the profile edge."
    )


def test_a_quality_that_is_worse_is_called_worse() -> None:
    found = of(scored(judged(SLOW), 16), scored(judged(FAST), 4), policy=QUICK)
    assert found.index == 1 and "quality worse (25.0 % against 100.0 %" in found.sentence
    assert "0 won, 12 lost, sign test p < 0.001" in found.sentence


def test_the_better_one_may_be_slower() -> None:
    found = of(scored(judged(SLOW), 16), scored(judged(FAST), 4), policy=CAREFUL)
    assert found.index == 0
    assert found.sentence.startswith("Use transformers: slower (ONNX is 8.7 times as fast)")
    assert "quality better" in found.sentence and "profile quality" in found.sentence


def test_only_one_passed() -> None:
    found = of(judged(SLOW), judged(FAST, "hold"), policy=QUICK)
    assert found == Recommendation(
        "Use transformers: it is the only version that passed its gates. ONNX failed fidelity.", 0
    )


def test_none_passed() -> None:
    found = of(judged(SLOW, "hold"), judged(FAST, "hold"), sample.failed(), policy=QUICK)
    assert found.index is None
    assert found.sentence.startswith("Use none of these versions: none passed its gates.")
    assert "could not be evaluated (quality: crashed: killed by SIGKILL" in found.sentence


def test_undecided() -> None:
    found = of(judged(SLOW, "hold"), judged(FAST, "insufficient_evidence"), policy=QUICK)
    assert found.index is None
    assert found.sentence == (
        "Undecided: no version has enough evidence. transformers failed fidelity; ONNX has too"
        " little evidence for quality."
    )


def test_an_incumbent_defends_its_place() -> None:
    incumbent = replace(judged(SLOW, "hold"), role="incumbent")
    found = of(incumbent, judged(FAST, "hold"), policy=QUICK)
    assert found.sentence == (
        "Keep transformers (incumbent): no other version passed its gates. ONNX failed fidelity."
    )
    assert of(incumbent, judged(FAST), policy=QUICK).sentence.startswith("Use ONNX: ")


def test_a_busy_machine_decides_nothing_by_speed() -> None:
    busy = "other processes took 40 % of the CPU time"
    both = (scored(judged(SLOW), 12), scored(judged(FAST), 10))
    assert of(*both, policy=CLOSE).index == 1
    found = of(*both, busy=busy, policy=CLOSE)
    assert found.index is None and found.sentence.startswith(
        f"Undecided between transformers and ONNX: {busy} while speed was measured"
    )
    # eight times as fast is faster even if both are a factor of two off
    found = of(*both, busy=busy, policy=QUICK)
    assert found.index == 1
    assert f"8.7 times as fast as transformers (roughly, as {busy}" in found.sentence


def test_the_page_says_it_first_and_marks_one_card() -> None:
    report = replace(BASE, candidates=(scored(judged(SLOW), 12), scored(judged(FAST), 10)))
    page = html_report.render(report, {}, QUICK)
    assert page.index("Use ONNX: ") < page.index('id="verdict"')
    assert page.count("Use this") == 1 and page.count("Passed its gates") == 2
    assert "while speed was measured" not in page
    busy = replace(report, machine=report.machine | {"load": {"words": "steal took 9 %"}})
    page = html_report.render(busy, {}, CLOSE)
    assert "Steal took 9 % while speed was measured" in page and "Use this" not in page


def test_sign_test_counts_only_what_differs() -> None:
    test = statistics.sign_test([1, 1, 0, 0, 1], [1, 0, 0, 1, 0])
    assert (test.items, test.won, test.lost) == (5, 2, 1) and test.p_value == 1.0
    assert statistics.sign_test([1, 0], [1, 0]).p_value == 1.0
    # ten of fifteen, either way: 2 * P(X >= 10), X binomial(15, 1/2)
    uneven = statistics.sign_test([0] * 10 + [1] * 5, [1] * 10 + [0] * 5)
    assert uneven.p_value == pytest.approx(0.3018, abs=1e-4)
    with pytest.raises(ValueError, match="paired scores of 1 and 0 items"):
        statistics.sign_test([1], [])
    assert told_apart(SLOW, sample.failed()) is None
