"""Who is compared with whom, and what a failing meter leaves."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from steps.evaluation import conversions, fidelity
from steps.evaluation.candidate import Candidate
from steps.evaluation.description import Description
from steps.evaluation.fidelity_comparison import Comparison
from steps.evaluation.progress import Display
from steps.evaluation.worker_process import CandidateFailedError, CandidateProcess, Limits
from tests.evaluation.test_evaluate import config

WHOLE = Comparison(
    kl=[0.1] * 8,
    agree=[1.0] * 8,
    nll=[1.0] * 6,
    nll_reference=[1.0] * 6,
    spans=[("en", 0, 4), ("de", 4, 8)],
    prompts_equal=[True, True],
    prompt_lengths=[9, 12],
    windows=2,
)


def subject(name: str, variant: str, digest: str | None) -> Candidate:
    described = Description(
        f"models:/m-{name}",
        "candidate",
        f"m-{name}",
        variant,
        "unknown",
        None,
        None,
        digest,
        None,
        None,
    )
    return Candidate(described, CandidateProcess(name, Limits(60, 60)))


def test_the_reference_is_of_the_same_snapshot(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not the first checkpoint there is; and two models of unknown snapshots have nothing in
    common.
    """
    compared: list[tuple[str, list[str]]] = []
    monkeypatch.setattr(
        conversions,
        "_compare",
        lambda one, group, *_: compared.append(
            (one.process.name, [each.process.name for each in group])
        ),
    )
    known = [
        ("old", "transformers", "sha256:1"),
        ("new", "transformers", "sha256:2"),
        ("unknown", "transformers", None),
    ]
    built = [
        ("a", "onnx", "sha256:2"),
        ("b", "onnx", "sha256:2"),
        ("c", "onnx", None),
        ("d", "onnx", "sha256:3"),
    ]
    subjects = [subject(*each) for each in (*known, *built)]
    conversions.compare_all(subjects, config(), tmp_path, Display(1.0))
    assert compared == [("new", ["a", "b"])]
    assert ["does not say which snapshot" in " ".join(each.notes) for each in subjects[3:]] == [
        False,
        False,
        True,
        False,
    ]
    assert "no transformers variant of the same snapshot" in subjects[6].notes[0]


def test_a_failing_meter_is_a_note_and_the_candidate_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One meter dies: its candidate was judged in another process and is not failed, and the next
    one is measured.
    """
    started: list[str] = []
    open_now: set[str] = set()

    class Started:
        def __init__(self, name: str, *_: Any) -> None:
            self.name = name

        def __enter__(self) -> "Started":
            started.append(self.name)
            open_now.add(self.name)
            assert len(open_now) <= 2  # the reference and one conversion
            return self

        def __exit__(self, *_: object) -> None:
            open_now.remove(self.name)

    def measure(
        _: Any, __: Any, pair: dict[str, Any], ___: Any, ____: Any, guard: Any, _____: Any
    ) -> dict[str, Comparison]:
        (name,) = pair

        def dies() -> None:
            raise CandidateFailedError("crashed: killed by SIGKILL", "")

        if name == "a":
            guard(name, dies)
            guard(name, lambda: pytest.fail("a part after the failure"))
            return {name: replace(WHOLE, spans=WHOLE.spans[:1])}
        return {name: WHOLE}

    monkeypatch.setattr(conversions, "CandidateProcess", Started)
    monkeypatch.setattr(conversions, "weights", lambda _: tmp_path)
    monkeypatch.setattr(fidelity, "measure", measure)
    reference, first, second = (
        subject(*each, "sha256:1") for each in (("t", "transformers"), ("a", "onnx"), ("b", "onnx"))
    )
    second.served_prompts = [9, 13]
    conversions.compare_all([reference, first, second], config(), tmp_path, Display(1.0))
    assert started == ["t-reference", "a-logits", "b-logits"]
    assert first.failure is None and first.metrics == {}
    assert first.notes == [
        "fidelity: the meter failed: crashed: killed by SIGKILL",
        "fidelity: 1 of 2 windows were compared, so no figure is given",
    ]
    assert second.metrics["fidelity/kl_mean"] == pytest.approx(0.1)
    assert (
        second.metrics["fidelity/prompt_agreement"] == 1.0
        and second.metrics["fidelity/served_prompt_agreement"] == 0.5
    )
