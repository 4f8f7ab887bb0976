"""Every answer is a trace with its checks on it, linked to the logged model."""

import json
from collections.abc import Callable
from dataclasses import replace

from steps.evaluation import packs
from steps.evaluation.answers import Answer
from steps.evaluation.description import describe
from steps.evaluation.traces import log_dataset, log_traces
from tests.evaluation.settings import PACK


def test_answers_become_traces(clerk: Callable[[str], str]) -> None:
    import mlflow

    whole = packs.load(str(PACK))
    pack = replace(
        whole,
        items=tuple(item for item in whole.items if item.id in ("france", "two", "hello", "fruit")),
    )
    described = describe(clerk("good"))
    texts = ["Paris", "five", "HELLO"]
    failed = Answer("fruit", "", None, 0, 0.25, 1_700_000_009.0, "RuntimeError: no bullets left")
    answers = [
        Answer(item.id, text, "stop", 2, 0.25, 1_700_000_000.0 + index)
        for index, (item, text) in enumerate(zip(pack.items[:3], texts, strict=True))
    ] + [failed]
    mlflow.set_experiment("scoring")
    with mlflow.start_run() as run:
        log_dataset(pack, [described.model_id])
        log_traces(described, pack, answers)
    logged = mlflow.search_traces(model_id=described.model_id, return_type="list")
    assert len(logged) == 4
    of_the_run = mlflow.search_traces(run_id=run.info.run_id, return_type="list")
    assert {trace.info.trace_id for trace in of_the_run} == {
        trace.info.trace_id for trace in logged
    }
    scores = {}
    for trace in logged:
        (root,) = trace.data.spans
        for assessment in trace.info.assessments:
            assert assessment.span_id == root.span_id
            assert assessment.metadata["mlflow.assessment.sourceRunId"] == run.info.run_id
        assert trace.info.execution_duration == 250
        # nothing was said: the words of the error are not checked
        if trace.info.tags["slm.item"] == "fruit":
            assert {
                assessment.name
                for assessment in trace.info.assessments
                if assessment.name.startswith("check ")
            } == set()
        named = {assessment.name: assessment.value for assessment in trace.info.assessments}
        scores[trace.info.tags["slm.item"]] = named["score"]
    wanted = {item.id: value for item, value in zip(pack.items, (1.0, 0.0, 1.0, 0.0), strict=True)}
    assert scores == wanted
    (two,) = (trace for trace in logged if trace.info.tags["slm.item"] == "two")
    known = {assessment.name: assessment for assessment in two.info.assessments}
    assert known["check number"].value is False and known["check number"].rationale
    assert json.loads(known["checks"].value) == [{"type": "number", "value": 4}]
    inputs = mlflow.get_run(run.info.run_id).inputs
    assert inputs is not None
    assert pack.digest.removeprefix("sha256:")[:32] in {
        item.dataset.digest for item in inputs.dataset_inputs
    }
