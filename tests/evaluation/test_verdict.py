"""The policy's verdicts, gate by gate."""

from dataclasses import replace

import pytest

from steps.config.gates import AbsoluteGates, GatesConfig, RelativeGates
from steps.core.errors import ConfigError
from steps.evaluation import packs, verdict
from steps.evaluation.report import (
    HOLD,
    INSUFFICIENT,
    PROMOTE,
    CandidateReport,
    Conformance,
    ConformanceRow,
    Quality,
    Verdict,
)
from tests.evaluation import sample

CORE = packs.load("core")
ONNX = sample.candidate(CORE, variant="onnx", share=0.7, speed=90, seed=4, kl=0.1)
LENIENT = GatesConfig(AbsoluteGates(quality_floor=0.1), RelativeGates(quality_margin=0.2))


def gate(decided: Verdict, name: str) -> bool | None:
    return {reached.name: reached.passed for reached in decided.gates}[name]


def test_all_gates_passed_promotes() -> None:
    decided = verdict.decide(ONNX, None, LENIENT, 0)
    assert decided.decision == PROMOTE and all(reached.passed for reached in decided.gates)


@pytest.mark.parametrize(
    ("gates", "name"),
    [
        (AbsoluteGates(quality_floor=0.99), "quality"),
        (AbsoluteGates(quality_floor=0.0, kl_ceiling=0.05), "fidelity"),
        (AbsoluteGates(quality_floor=0.0, ttft_p95_ceiling=1e-6), "time to first token"),
        (AbsoluteGates(quality_floor=0.0, rss_ceiling_bytes=1_000_000), "memory"),
        (AbsoluteGates(quality_floor=0.0, licences=["MIT"]), "licence"),
    ],
)
def test_each_absolute_gate_holds(gates: AbsoluteGates, name: str) -> None:
    decided = verdict.decide(ONNX, None, GatesConfig(gates), 0)
    assert decided.decision == HOLD and [
        reached.name for reached in decided.gates if reached.passed is False
    ] == [name]


def test_what_was_not_measured_is_not_passed() -> None:
    bare = replace(
        ONNX,
        metrics={
            key: value for key, value in ONNX.metrics.items() if not key.startswith("fidelity")
        },
    )
    decided = verdict.decide(bare, None, LENIENT, 0)
    assert decided.decision == INSUFFICIENT and gate(decided, "fidelity") is None
    untried = verdict.decide(replace(ONNX, conformance=Conformance()), None, LENIENT, 0)
    assert untried.decision == INSUFFICIENT and gate(untried, "conformance") is None


def test_reference_needs_no_fidelity() -> None:
    reference = sample.candidate(CORE, variant="transformers", share=0.7, speed=10, seed=5)
    assert "fidelity" not in {
        reached.name for reached in verdict.decide(reference, None, LENIENT, 0).gates
    }


def test_wrong_template_holds() -> None:
    wrong = replace(ONNX, metrics=ONNX.metrics | {"fidelity/prompt_agreement": 0.5})
    decided = verdict.decide(wrong, None, LENIENT, 0)
    assert decided.decision == HOLD and gate(decided, "chat template") is False
    served = replace(ONNX, metrics=ONNX.metrics | {"fidelity/served_prompt_agreement": 0.875})
    decided = verdict.decide(served, None, LENIENT, 0)
    assert decided.decision == HOLD and gate(decided, "chat template") is False


@pytest.mark.parametrize(
    "missing", ["fidelity/prompt_agreement", "fidelity/served_prompt_agreement"]
)
def test_an_untried_template_is_not_passed(missing: str) -> None:
    bare = replace(
        ONNX, metrics={key: value for key, value in ONNX.metrics.items() if key != missing}
    )
    decided = verdict.decide(bare, None, LENIENT, 0)
    assert decided.decision == INSUFFICIENT and gate(decided, "chat template") is None
    waived = GatesConfig(replace(LENIENT.absolute, chat_template=False), LENIENT.relative)
    assert verdict.decide(bare, None, waived, 0).decision == PROMOTE


def test_a_floor_within_the_interval_is_undecided() -> None:
    def at(score: float, low: float) -> bool | None:
        metrics = ONNX.metrics | {"quality/score": score, "quality/score_low": low}
        return gate(
            verdict.decide(
                replace(ONNX, metrics=metrics),
                None,
                GatesConfig(AbsoluteGates(quality_floor=0.5)),
                0,
            ),
            "quality",
        )

    assert (at(0.7, 0.55), at(0.6, 0.45), at(0.4, 0.3)) == (True, None, False)


def test_first_token_is_judged_by_the_slowest_where_samples_are_few() -> None:
    gates = GatesConfig(AbsoluteGates(quality_floor=None, ttft_p95_ceiling=0.02))
    few = next(
        reached
        for reached in verdict.decide(ONNX, None, gates, 0).gates
        if reached.name == "time to first token"
    )
    assert (
        few.passed is False
        and few.value == ONNX.metrics["speed/ttft_max_s"]
        and "too few samples for a p95" in few.reason
    )
    many = replace(ONNX, metrics=ONNX.metrics | {"speed/ttft_p95_s": 0.01})
    assert gate(verdict.decide(many, None, gates, 0), "time to first token") is True


def test_gates_on_speed_are_undecided_where_something_else_kept_the_machine_busy() -> None:
    busy = "other processes took 40 % of the CPU time"
    relative = RelativeGates(quality_margin=0.9, decode_ratio_floor=0.9, ttft_ratio_ceiling=1.1)
    gates = GatesConfig(AbsoluteGates(quality_floor=0.0, ttft_p95_ceiling=1e-6), relative)
    incumbent = sample.candidate(
        CORE, variant="onnx", share=0.7, speed=900, seed=6, kl=0.1, role="incumbent"
    )
    timed = ("time to first token", "time to first token vs incumbent", "decode vs incumbent")
    quiet = verdict.decide(ONNX, incumbent, gates, 0)
    assert quiet.decision == HOLD and [gate(quiet, name) for name in timed] == [False] * 3
    disturbed = verdict.decide(ONNX, incumbent, gates, 0, busy=busy)
    assert disturbed.decision == INSUFFICIENT
    assert [gate(disturbed, name) for name in timed] == [None] * 3
    assert all(
        f"but {busy} meanwhile" in reached.reason
        for reached in disturbed.gates
        if reached.name in timed
    )
    # an absolute limit that is kept on a busy machine would be kept on a quiet one
    lenient = verdict.decide(ONNX, None, LENIENT, 0, busy=busy)
    assert lenient.decision == PROMOTE and gate(lenient, "time to first token") is True
    # a ratio is of no use either way
    faster = replace(incumbent, role="candidate")
    ahead = verdict.decide(faster, replace(ONNX, role="incumbent"), gates, 0, busy=busy)
    assert gate(ahead, "decode vs incumbent") is None


def test_named_limit_is_complete_and_a_broken_row_is_not() -> None:
    broken = Conformance((ConformanceRow("seed", False, None, "four seeds gave one text"),), False)
    decided = verdict.decide(replace(ONNX, conformance=broken), None, LENIENT, 0)
    assert decided.decision == HOLD and "broken: seed" in next(
        reached.reason for reached in decided.gates if reached.name == "conformance"
    )
    assert gate(verdict.decide(ONNX, None, LENIENT, 0), "conformance") is True


def serving(share: float, seed: int) -> CandidateReport:
    return sample.candidate(
        CORE, variant="transformers", share=share, speed=10, seed=seed, role="incumbent"
    )


def test_worse_than_the_incumbent_holds() -> None:
    decided = verdict.decide(
        replace(
            ONNX, quality=sample.candidate(CORE, variant="onnx", share=0.0, speed=9, seed=6).quality
        ),
        serving(1.0, 7),
        LENIENT,
        0,
    )
    assert decided.decision == HOLD and gate(decided, "quality vs incumbent") is False


def test_as_good_as_the_incumbent_promotes() -> None:
    decided = verdict.decide(
        replace(ONNX, quality=serving(0.7, 7).quality), serving(0.7, 7), LENIENT, 0
    )
    assert decided.decision == PROMOTE and gate(decided, "quality vs incumbent") is True


def test_a_small_pack_says_so() -> None:
    smoke = packs.load("smoke")
    ours = sample.candidate(smoke, variant="onnx", share=0.5, speed=90, seed=11, kl=0.1)
    theirs = sample.candidate(
        smoke, variant="transformers", share=0.5, speed=10, seed=12, role="incumbent"
    )
    decided = verdict.decide(
        ours,
        theirs,
        GatesConfig(AbsoluteGates(quality_floor=None), RelativeGates(quality_margin=0.05)),
        0,
    )
    assert decided.decision == INSUFFICIENT
    reason = next(
        reached.reason for reached in decided.gates if reached.name == "quality vs incumbent"
    )
    assert "too small to decide, about" in reason and "with p = " in reason


def test_enough_items_are_not_called_too_few() -> None:
    """128 items, ten losses and no win: the pack is not too small, the two are too far apart for
    the margin.
    """
    items = CORE.items[:128]
    scored = [(item.id, float(index >= 10)) for index, item in enumerate(items)]
    template = ONNX.quality.items[0]
    ours = Quality({}, tuple(replace(template, id=name, score=score) for name, score in scored))
    theirs = Quality({}, tuple(replace(template, id=name, score=1.0) for name, _ in scored))
    decided = verdict.decide(
        replace(ONNX, quality=ours),
        replace(serving(0.7, 7), quality=theirs),
        GatesConfig(AbsoluteGates(quality_floor=None)),
        0,
    )
    judged = next(reached for reached in decided.gates if reached.name == "quality vs incumbent")
    assert (
        judged.passed is None
        and "too close to the margin" in judged.reason
        and "too small" not in judged.reason
    )


def test_failures() -> None:
    assert verdict.decide(sample.failed(), None, LENIENT, 0).decision == HOLD
    against = verdict.decide(ONNX, replace(sample.failed(), role="incumbent"), LENIENT, 0)
    assert against.decision == INSUFFICIENT
    assert "evaluate.incumbent=false" in against.gates[-1].reason


def test_ratios() -> None:
    gates = GatesConfig(
        LENIENT.absolute,
        RelativeGates(quality_margin=0.5, decode_ratio_floor=2.0, ttft_ratio_ceiling=0.5),
    )
    assert verdict.decide(ONNX, serving(0.7, 7), gates, 0).decision == PROMOTE
    slow = sample.candidate(CORE, variant="onnx", share=0.7, speed=11, seed=4, kl=0.1)
    decided = verdict.decide(slow, serving(0.7, 7), gates, 0)
    assert (
        gate(decided, "decode vs incumbent") is False
        and gate(decided, "time to first token vs incumbent") is False
    )


@pytest.mark.parametrize(
    "make",
    [
        lambda: AbsoluteGates(quality_floor=2.0),
        lambda: AbsoluteGates(kl_ceiling=0),
        lambda: RelativeGates(confidence=1.0),
    ],
)
def test_bad_gates_are_named(make: object) -> None:
    assert callable(make)
    with pytest.raises(ConfigError, match=r"promotion\.gates\."):
        make()
