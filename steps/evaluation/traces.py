"""Every answer as a trace in the MLflow UI, with its checks as assessments, linked to the logged
model and the run.
"""

import json
from collections.abc import Iterator, Sequence
from typing import Any

import mlflow
import pandas as pd
from mlflow.data.pandas_dataset import from_pandas
from mlflow.entities import (
    Assessment,
    AssessmentSource,
    AssessmentSourceType,
    Expectation,
    Feedback,
    LiveSpan,
    LoggedModelInput,
)
from mlflow.tracing.constant import AssessmentMetadataKey, TraceMetadataKey
from mlflow.tracing.provider import safe_set_span_in_context
from mlflow.utils.mlflow_tags import MLFLOW_RUN_TYPE, MLFLOW_RUN_TYPE_GENAI_EVALUATE

from steps.core import tags
from steps.evaluation.answers import Answer
from steps.evaluation.description import Description
from steps.evaluation.packs import Item, Pack

DIGEST_LENGTH = 32  # MLflow keeps at most 36 characters of a dataset's digest
CODE = AssessmentSource(source_type=AssessmentSourceType.CODE, source_id="checks")


def log_traces(description: Description, pack: Pack, answers: Sequence[Answer]) -> None:
    """Write one trace an answer, with its checks on it, for the active run.

    The spans carry the time that the answer really took in the candidate's own process; nothing is
    asked again. What is written is what ``mlflow.genai.evaluate`` leaves, but assessments go with
    their trace: one by one, each of them a transaction, they take half a minute of a default
    evaluation.
    """
    run = mlflow.active_run()
    if run is None:
        raise RuntimeError("no active run: log_traces is called inside a step's run")
    items = {item.id: item for item in pack.items}
    metadata = {TraceMetadataKey.MODEL_ID: description.model_id} if description.model_id else {}
    for answer in answers:
        item = items[answer.item]
        start = int(answer.started * 1e9)
        span = mlflow.start_span_no_context(
            f"{pack.name}/{item.id}",
            span_type="CHAT_MODEL",
            inputs={"messages": [dict(message) for message in item.messages]},
            attributes={
                "completion_tokens": str(answer.completion_tokens),
                "finish_reason": str(answer.finish_reason),
            },
            tags={
                tags.VARIANT: description.variant,
                tags.PACK: pack.name,
                tags.ITEM: item.id,
                tags.SKILL: item.tags[0],
            },
            metadata=metadata,
            start_time_ns=start,
        )
        with safe_set_span_in_context(span):  # so that they are kept in memory until it ends
            for assessment in _assessments(item, answer, span, run.info.run_id):
                mlflow.log_assessment(span.trace_id, assessment)
        span.end(
            outputs=answer.text if answer.error is None else f"error: {answer.error}",
            status="OK" if answer.error is None else "ERROR",
            end_time_ns=start + int(answer.latency_s * 1e9),
        )
    mlflow.flush_trace_async_logging()
    # lists the run among those of evaluations in the UI
    mlflow.set_tag(MLFLOW_RUN_TYPE, MLFLOW_RUN_TYPE_GENAI_EVALUATE)


def _assessments(item: Item, answer: Answer, span: LiveSpan, run_id: str) -> Iterator[Assessment]:
    """What was expected of an answer and whether it holds."""
    place: dict[str, Any] = {
        "source": CODE,
        "span_id": span.span_id,
        "metadata": {AssessmentMetadataKey.SOURCE_RUN_ID: run_id},
    }
    checks = json.dumps([dict(check) for check in item.checks], ensure_ascii=False)
    yield Expectation("item", item.id, **place)
    yield Expectation("checks", checks, **place)
    if answer.error is not None:  # checks have nothing to look at
        yield Expectation("error", answer.error, **place)
        yield Feedback("score", 0.0, rationale=answer.error, **place)
        return
    score, results = item.score(answer.text)
    yield Feedback("score", score, **place)
    for result in results:
        yield Feedback(f"check {result.type}", result.passed, rationale=result.detail, **place)


def log_dataset(pack: Pack, model_ids: Sequence[str]) -> None:
    """Put the pack on the active run as a dataset whose digest is the pack's, so that runs on the
    same items can be found.
    """
    frame = pd.DataFrame(
        {
            "id": [item.id for item in pack.items],
            "messages": [
                json.dumps([dict(message) for message in item.messages], ensure_ascii=False)
                for item in pack.items
            ],
            "skill": [item.tags[0] for item in pack.items],
        }
    )
    dataset = from_pandas(
        frame,
        name=f"pack {pack.name} {pack.version}",
        digest=pack.digest.removeprefix("sha256:")[:DIGEST_LENGTH],
    )
    for model_id in model_ids or [None]:  # type: ignore[list-item]
        mlflow.log_input(
            dataset,
            context="evaluation",
            tags={tags.PACK_DIGEST: pack.digest},
            model=LoggedModelInput(model_id=model_id) if model_id else None,
        )
