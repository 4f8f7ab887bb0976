"""Every answer as a trace in the MLflow UI, with its checks as assessments, linked to the logged
model and the run.
"""

import contextlib
import io
import json
import logging
from collections.abc import Mapping, Sequence
from typing import Any

import mlflow
import pandas as pd
from mlflow.data.pandas_dataset import from_pandas
from mlflow.entities import Feedback, LoggedModelInput
from mlflow.genai.scorers import scorer
from mlflow.tracing.constant import TraceMetadataKey

from steps.core import tags
from steps.evaluation import checks
from steps.evaluation.answers import Answer
from steps.evaluation.description import Description
from steps.evaluation.packs import Pack

log = logging.getLogger(__name__)
DIGEST_LENGTH = 32  # MLflow keeps at most 36 characters of a dataset's digest


def log_traces(description: Description, pack: Pack, answers: Sequence[Answer]) -> None:
    """Write one trace an answer on the active run and let ``mlflow.genai.evaluate`` put the checks
    on them.

    The spans carry the time that the answer really took in the candidate's own process; nothing is
    asked again.
    """

    @scorer(name="checks")
    def held(outputs: Any, expectations: Mapping[str, Any]) -> list[Feedback]:
        if expectations.get("error"):  # there is no answer that checks could look at
            return [Feedback(name="score", value=0.0, rationale=str(expectations["error"]))]
        results = [checks.run(check, str(outputs)) for check in json.loads(expectations["checks"])]
        score = Feedback(name="score", value=float(all(result.passed for result in results)))
        return [
            score,
            *(
                Feedback(name=f"check {result.type}", value=result.passed, rationale=result.detail)
                for result in results
            ),
        ]

    items = {item.id: item for item in pack.items}
    metadata = {TraceMetadataKey.MODEL_ID: description.model_id} if description.model_id else {}
    rows = []
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
        span.end(
            outputs=answer.text if answer.error is None else f"error: {answer.error}",
            status="OK" if answer.error is None else "ERROR",
            end_time_ns=start + int(answer.latency_s * 1e9),
        )
        expected = {
            "item": item.id,
            "checks": json.dumps([dict(check) for check in item.checks], ensure_ascii=False),
        }
        rows.append(
            (
                span.trace_id,
                expected if answer.error is None else {**expected, "error": answer.error},
            )
        )
    mlflow.flush_trace_async_logging()
    data = [
        {"trace": trace, "expectations": expectations}
        for trace_id, expectations in rows
        if (trace := mlflow.get_trace(trace_id)) is not None
    ]
    said = io.StringIO()
    # a second progress bar beside our own
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        mlflow.genai.evaluate(data=data, scorers=[held], model_id=description.model_id or None)
    log.debug("mlflow.genai.evaluate: %s", said.getvalue())


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
