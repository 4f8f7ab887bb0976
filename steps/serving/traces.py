"""Sampled requests as MLflow traces, for people to look at and for `monitor` to count.

A trace holds figures: times, tokens, how the answer ended. The prompt and the answer are in it only
with ``serve.trace_prompts``. Traces are written by one thread behind a bounded queue, so that no
answer waits for the tracking server; one that cannot be written is dropped and counted.
"""

import json
import logging
import os
import queue
import random
import secrets
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from typing import Any

import mlflow
from mlflow.entities import Span, SpanType, TraceInfo, TraceState
from mlflow.entities.trace_location import TraceLocation
from mlflow.exceptions import MlflowException
from mlflow.tracing.client import TracingClient
from mlflow.tracing.constant import SpanAttributeKey, TraceMetadataKey, TraceTagKey
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import SpanContext, TraceFlags
from opentelemetry.trace.status import Status, StatusCode

from steps.config.root import Config
from steps.config.serve import ServeConfig
from steps.core import tags
from steps.core.errors import ConfigError
from steps.core.redaction import redact
from steps.evaluation import machine
from steps.registry.retries import without_own_retries
from steps.serving.answered import Answered

log = logging.getLogger(__name__)

SCHEMA_VERSION = "mlflow.trace_schema.version"
MOST_QUEUED = 500  # traces; with prompts, some 20 MB of them at most
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 30.0  # seconds after a trace that could not be written
CLOSE_SECONDS = 5.0  # that the queue has when the server ends
LONGEST_TEXT = 20_000  # characters of a prompt or an answer in a trace; what is longer is cut
# what became of a trace, as slm_traces_total has it
WRITTEN, FULL, FAILED, UNFINISHED = "written", "queue_full", "failed", "not_written_at_end"
# of a request, what a trace may hold without its text: figures alone
SETTINGS = ("max_tokens", "max_completion_tokens", "temperature", "top_p", "top_k", "n", "seed")


class TraceWriter:
    """Writes a share of the requests as traces.

    Args:
        config: of the server.
        processor: of this machine.
        count: told what became of each sampled request's trace.
        draw: a number from 0 to below 1.
    """

    def __init__(
        self,
        config: ServeConfig,
        processor: str,
        count: Callable[[str], None],
        draw: Callable[[], float] = random.random,
    ) -> None:
        self._share, self._prompts = config.trace_sample, config.trace_prompts
        self._experiment, self._processor = config.trace_experiment, processor
        self._count, self._draw = count, draw
        self._queue: queue.Queue[Answered] = queue.Queue(MOST_QUEUED)
        self._closing = threading.Event()
        self._experiment_id: str | None = None
        self._thread = threading.Thread(target=self._work, name="traces", daemon=True)

    def start(self) -> None:
        """Begin to write."""
        self._thread.start()

    def offer(self, answered: Answered) -> None:
        """Take a request, if it is drawn. Returns at once: a full queue drops it."""
        if self._draw() >= self._share:
            return
        # what waits holds no more than what is written
        text = _cut(answered.text) if self._prompts else ""
        kept = replace(answered, row=self._inputs(answered.row), text=text)
        try:
            self._queue.put_nowait(kept)
        except queue.Full:
            self._count(FULL)

    def close(self, seconds: float = CLOSE_SECONDS) -> None:
        """Write what is queued, for some seconds at most; the rest is dropped, counted, logged."""
        until = time.monotonic() + seconds
        while self._thread.is_alive() and self._queue.unfinished_tasks:
            if time.monotonic() >= until:
                break
            time.sleep(0.02)
        self._closing.set()
        left = self._queue.unfinished_tasks
        for _ in range(left):
            self._count(UNFINISHED)
        if left:
            log.warning("%d sampled requests were not written as traces before the end", left)

    def _work(self) -> None:
        pause = FIRST_PAUSE
        while not self._closing.is_set():
            try:
                answered = self._queue.get(timeout=0.2)
            except queue.Empty:
                continue
            try:
                with without_own_retries():
                    self._write(answered)
            except Exception as error:  # noqa: BLE001 - whatever a store raises, answers go on
                if not self._closing.is_set():
                    self._count(FAILED)
                if pause == FIRST_PAUSE:
                    log.warning(
                        "a trace could not be written (%s); slm_traces_total counts those dropped",
                        redact((str(error).splitlines() or [type(error).__name__])[0]),
                    )
                self._experiment_id = None
                self._queue.task_done()
                self._closing.wait(pause)
                pause = min(2 * pause, LONGEST_PAUSE)
            else:
                if not self._closing.is_set():
                    self._count(WRITTEN)
                self._queue.task_done()
                pause = FIRST_PAUSE

    def _write(self, answered: Answered) -> None:
        """Write one trace; the span is made whole here, as MLflow's exporter raises nothing."""
        if self._experiment_id is None:
            self._experiment_id = experiment_id(self._experiment)
        version, figures = answered.version, answered.figures
        number, state = secrets.randbits(128), _state(figures.outcome)
        trace_id, name = f"tr-{number:032x}", f"{version.name}/{version.number}"
        plain = asdict(figures)
        attributes: dict[str, Any] = {
            **{key: value for key, value in plain.items() if value is not None},
            SpanAttributeKey.REQUEST_ID: trace_id,
            SpanAttributeKey.SPAN_TYPE: SpanType.CHAT_MODEL,
            SpanAttributeKey.MODEL: name,
            SpanAttributeKey.CHAT_USAGE: {
                "input_tokens": figures.prompt_tokens,
                "output_tokens": figures.tokens,
                "total_tokens": figures.prompt_tokens + figures.tokens,
            },
            SpanAttributeKey.INPUTS: dict(answered.row),
        }
        if self._prompts:
            attributes[SpanAttributeKey.OUTPUTS] = answered.text
        begun = int(answered.started * 1e9)
        span = Span(
            ReadableSpan(
                name,
                context=SpanContext(number, secrets.randbits(64), False, TraceFlags(1)),
                attributes={key: json.dumps(value) for key, value in attributes.items()},
                start_time=begun,
                end_time=begun + int(figures.seconds * 1e9),
                status=Status(StatusCode.ERROR if state is TraceState.ERROR else StatusCode.OK),
            )
        )
        info = TraceInfo(
            trace_id,
            TraceLocation.from_experiment_id(self._experiment_id),
            begun // 1_000_000,
            state,
            request_preview=json.dumps(attributes[SpanAttributeKey.INPUTS])[:1000],
            response_preview=answered.text[:1000] if self._prompts else None,
            execution_duration=int(figures.seconds * 1000),
            trace_metadata={
                SCHEMA_VERSION: "3",
                tags.ANSWER: json.dumps(plain),
                **({TraceMetadataKey.MODEL_ID: version.model_id} if version.model_id else {}),
            },
            tags={
                TraceTagKey.TRACE_NAME: name,
                tags.MODEL: version.name,
                tags.VERSION: str(version.number),
                tags.DIGEST: version.digest,
                tags.VARIANT: version.variant,
                tags.ROLE: answered.role,
                tags.ALIAS: answered.alias,
                tags.PROCESSOR: self._processor,
            },
        )
        client = TracingClient()
        client.start_trace(info)  # before the span: the other way round takes half as long again
        client.log_spans(self._experiment_id, [span])

    def _inputs(self, row: Mapping[str, Any]) -> dict[str, Any]:
        inputs = {key: row[key] for key in SETTINGS if isinstance(row.get(key), int | float)}
        if self._prompts:
            for key in ("messages", "prompt"):
                if key in row:
                    text = json.dumps(row[key], ensure_ascii=False)
                    inputs[key] = row[key] if len(text) <= LONGEST_TEXT else _cut(text)
        return inputs


def writer_of(config: Config, count: Callable[[str], None]) -> TraceWriter | None:
    """The writer of traces; None where none are to be written.

    Args:
        config: of the server.
        count: told what became of each sampled request's trace.

    Raises:
        ConfigError: they would be among those of evaluations.
    """
    if not config.serve.trace_sample:
        return None
    place = config.serve.trace_experiment
    evaluated_in = {
        config.experiment,
        os.environ.get("MLFLOW_EXPERIMENT_NAME"),
        *config.promotion.evidence.experiments,
    }
    if place in evaluated_in:
        raise ConfigError(
            "serve.trace_experiment", place, "an experiment in which no model is evaluated"
        )
    log.info(
        "%g %% of the requests become traces in the experiment %r, %s their text",
        100 * config.serve.trace_sample,
        place,
        "with" if config.serve.trace_prompts else "without",
    )
    return TraceWriter(config.serve, machine.describe()["processor"], count)


def experiment_id(name: str) -> str:
    """Id of the experiment that traces are written to; it is made where there is none."""
    client = mlflow.MlflowClient()
    found = client.get_experiment_by_name(name)
    if found is not None:
        return str(found.experiment_id)
    try:
        return str(client.create_experiment(name))
    except MlflowException:
        found = client.get_experiment_by_name(name)  # another server made it just now
        if found is None:
            raise
        return str(found.experiment_id)


def _state(outcome: str) -> TraceState:
    return TraceState.ERROR if outcome.isdigit() else TraceState.OK


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST_TEXT else text[:LONGEST_TEXT] + "…"
