"""Sampled requests as MLflow traces: what is in them, and what happens when they cannot be
written.
"""

import asyncio
import contextlib
import json
import time
from collections import Counter
from collections.abc import AsyncGenerator, Iterator, Mapping
from types import SimpleNamespace
from typing import Any, cast

import mlflow
import pytest

from steps.config.serve import ServeConfig
from steps.core.errors import ConfigError
from steps.serving import answers, traces
from steps.serving.answered import Answered, AnswerFigures
from steps.serving.answers import Question
from steps.serving.deployment import Deployment
from steps.serving.errors import ApiError
from steps.serving.metrics import Metrics
from steps.serving.routes import Choice, Route
from steps.serving.served_version import ServedVersion
from steps.serving.server import build
from steps.serving.traces import TraceWriter

VERSION = ServedVersion("slm", 3, "onnx", "sha256:abc", 0, "m-" + "0" * 32)
ROW = {
    "messages": [{"role": "user", "content": "the secret plan"}],
    "max_tokens": 8,
    "stop": ["secret stop"],
    "user": "secret user",
}
FIGURES = AnswerFigures("ok", 1.5, 0.25, 0.125, 12, 11, "stop", False, None, 2)


def answered(**changes: Any) -> Answered:
    given = {"figures": FIGURES, "row": ROW, "text": "the secret answer", **changes}
    return Answered(VERSION, "champion", "answered", 1_700_000_000.0, **given)


class Writers:
    """Makes writers, and ends them."""

    def __init__(self) -> None:
        self.made: list[TraceWriter] = []
        self.counted: Counter[str] = Counter()

    def __call__(self, **settings: Any) -> TraceWriter:
        config = ServeConfig(**{"trace_sample": 1.0, **settings})
        self.made.append(
            TraceWriter(config, "a processor", lambda said: self.counted.update([said]))
        )
        self.made[-1].start()
        return self.made[-1]


@pytest.fixture
def writers() -> Iterator[Writers]:
    made = Writers()
    yield made
    for one in made.made:
        one.close(0)


def written() -> list[Any]:
    found = mlflow.MlflowClient().get_experiment_by_name("slm-serving")
    assert found is not None
    return list(mlflow.MlflowClient().search_traces(locations=[found.experiment_id]))


def everything_of(trace: Any) -> str:
    return json.dumps([trace.to_dict(), trace.info.request_preview, trace.info.response_preview])


@pytest.mark.usefixtures("tracking")
def test_a_trace_holds_the_figures_and_not_one_word(writers: Writers) -> None:
    writer = writers()
    writer.offer(answered())
    writer.close()
    (trace,) = written()
    (span,) = trace.data.spans
    assert (span.span_type, span.status.status_code.value) == ("CHAT_MODEL", "OK")
    assert (trace.info.request_time, trace.info.execution_duration) == (1_700_000_000_000, 1500)
    assert trace.info.token_usage == {"input_tokens": 12, "output_tokens": 11, "total_tokens": 23}
    said = ("first_token_s", "inter_token_s", "outcome", "finish_reason", "refused", "concurrency")
    assert [span.attributes[key] for key in said] == [0.25, 0.125, "ok", "stop", False, 2]
    wanted = {
        "slm.model": "slm",
        "slm.version": "3",
        "slm.digest": "sha256:abc",
        "slm.role": "answered",
        "slm.alias": "champion",
        "slm.processor": "a processor",
    }
    assert wanted.items() <= trace.info.tags.items()
    assert trace.info.trace_metadata["mlflow.modelId"] == VERSION.model_id
    assert AnswerFigures.from_json(trace.info.trace_metadata["slm.answer"]) == FIGURES
    assert span.inputs == {"max_tokens": 8} and span.outputs is None
    assert "secret" not in everything_of(trace)
    assert writers.counted == {"written": 1}
    assert [
        one.info.trace_id
        for one in mlflow.search_traces(model_id=VERSION.model_id, return_type="list",
                                        locations=[trace.info.experiment_id])
    ] == [trace.info.trace_id]  # fmt: skip


@pytest.mark.usefixtures("tracking")
def test_with_trace_prompts_it_holds_prompt_and_answer(writers: Writers) -> None:
    writer = writers(trace_prompts=True)
    writer.offer(answered())
    writer.offer(answered(row={"prompt": "p" * 50_000}))
    writer.close()
    spans = [trace.data.spans[0] for trace in written()]
    (chat,) = [span for span in spans if "messages" in span.inputs]
    assert chat.inputs["messages"] == ROW["messages"] and chat.outputs == "the secret answer"
    assert "secret stop" not in json.dumps(chat.inputs)
    (prompt,) = [span for span in spans if "prompt" in span.inputs]
    assert len(prompt.inputs["prompt"]) == 20_001


def test_a_share_of_the_requests_is_drawn() -> None:
    draws = iter([0.0, 0.0999, 0.1, 0.5])
    writer = TraceWriter(ServeConfig(trace_sample=0.1), "", lambda _: None, lambda: next(draws))
    for _ in range(4):
        writer.offer(answered())
    assert writer._queue.qsize() == 2


def test_a_full_queue_drops_and_counts_and_nobody_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(traces, "MOST_QUEUED", 2)
    counted: Counter[str] = Counter()
    writer = TraceWriter(ServeConfig(trace_sample=1.0), "", lambda said: counted.update([said]))
    began = time.monotonic()
    for _ in range(100):
        writer.offer(answered())
    assert time.monotonic() - began < 1
    assert counted == {"queue_full": 98}
    writer.close(0)
    assert counted == {"queue_full": 98, "not_written_at_end": 2}


def test_without_a_tracking_server_traces_are_dropped_and_counted(
    writers: Writers, tracking: str, monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    monkeypatch.setattr(traces, "FIRST_PAUSE", 0.01)
    mlflow.set_tracking_uri("http://127.0.0.1:9")
    writer = writers()
    for _ in range(3):
        writer.offer(answered())
    writer.close(20)
    assert writers.counted == {"failed": 3}
    told = [record.getMessage() for record in caplog.records if "could not be" in record.message]
    assert len(told) == 1 and "\n" not in told[0]
    mlflow.set_tracking_uri(tracking)
    again = writers()
    again.offer(answered())
    again.close()
    assert writers.counted == {"failed": 3, "written": 1}


def test_without_a_sample_nothing_is_written() -> None:
    writer = TraceWriter(ServeConfig(), "", lambda _: None)
    writer.offer(answered())
    assert writer._queue.empty()


@pytest.mark.parametrize(
    "text",
    [
        *("", "[]", "{}", '{"outcome": 5, "seconds": 1}', '{"outcome": "ok", "seconds": NaN}'),
        *('{"outcome": "ok", "seconds": -1}', '{"outcome": "ok", "seconds": 1, "tokens": -1}'),
        *('{"outcome": "ok", "seconds": "1"}', '{"outcome": "ok", "seconds": 1, "concurrency": 0}'),
    ],
)
def test_what_is_not_the_figures_of_an_answer_is_told(text: str) -> None:
    with pytest.raises(ValueError):
        AnswerFigures.from_json(text)


def test_figures_of_a_later_version_are_read() -> None:
    text = '{"outcome": "ok", "seconds": 1, "tokens": 4, "later": [1]}'
    assert AnswerFigures.from_json(text) == AnswerFigures("ok", 1, tokens=4)


@pytest.mark.parametrize("experiment", ["slm-promote", "evidence"])
def test_traces_never_go_where_models_are_evaluated(experiment: str, tmp_path: Any) -> None:
    from steps.pipeline.compose import compose_config

    config = compose_config(
        [
            "serve.trace_sample=0.5",
            f"serve.trace_experiment={experiment}",
            "promotion.evidence.experiments=[evidence]",
            f"store.path={tmp_path}",
        ]
    )
    with pytest.raises(ConfigError, match=r"serve.trace_experiment='.*expected an experiment in"):
        build(config)


# --- what of an answer is recorded


class Stand:
    """Stands in for a deployment: streams what it is told."""

    version = VERSION
    admission = SimpleNamespace(active=0, waiting=0, capacity=4)

    def __init__(self, *chunks: Any, error: Exception | None = None) -> None:
        self._chunks, self._error = chunks, error

    async def events(self, _row: Mapping[str, Any], _deadline: float) -> AsyncGenerator[Any]:
        self.admission = SimpleNamespace(active=3, waiting=0, capacity=4)
        for chunk in self._chunks:
            yield chunk
        if self._error is not None:
            raise self._error


def chunk(text: str = "", reason: str | None = None, usage: Any = None) -> dict[str, Any]:
    choices = [{"index": 0, "delta": {"content": text}, "finish_reason": reason}]
    return {"choices": choices, "usage": usage}


def asked(stand: Stand, row: Mapping[str, Any], parts: Any = answers.chat_chunks) -> AnswerFigures:
    """What is recorded of one answer."""
    got: list[Answered] = []
    deployment = cast(Deployment, stand)
    choice = Choice(Route("slm", "champion"), deployment)
    question = Question(choice, row, time.monotonic() + 5, trace=got.append)

    async def ask() -> None:
        async for _ in parts(question, Metrics()):
            pass

    with contextlib.suppress(ApiError):
        asyncio.run(ask())
    (one,) = got
    assert (one.version, one.alias, one.role) == (VERSION, "champion", "answered")
    return one.figures


def test_times_tokens_and_company_of_an_answer_are_recorded() -> None:
    usage = {"prompt_tokens": 5, "completion_tokens": 3}
    stand = Stand(chunk("I can't"), chunk(" help with that."), chunk("", "stop", usage))
    figures = asked(stand, ROW)
    assert figures.first_token_s is not None and figures.inter_token_s is not None
    assert (figures.outcome, figures.finish_reason, figures.refused) == ("ok", "stop", True)
    assert (figures.prompt_tokens, figures.tokens, figures.concurrency) == (5, 3, 3)


def test_a_format_that_is_not_kept_is_recorded_but_not_what_its_client_cut() -> None:
    row = {**ROW, "response_format": {"type": "json_object"}}
    assert asked(Stand(chunk('{"a": 1}', "stop")), row).format_valid is True
    assert asked(Stand(chunk('{"a": ', "stop")), row).format_valid is False
    assert asked(Stand(chunk('{"a": ', "length")), row).format_valid is None
    assert asked(Stand(chunk('{"a": ', "stop")), ROW).format_valid is None


def test_an_answer_that_fails_has_its_status_and_not_its_words() -> None:
    error = ApiError(503, "secret", code="worker_ended")
    figures = asked(Stand(chunk("a"), error=error), ROW)
    assert (figures.outcome, figures.tokens) == ("503", 0)


def test_an_answer_that_had_begun_when_its_time_was_up_is_its_clients_choice() -> None:
    late = ApiError(503, "too late", code="timeout")
    assert asked(Stand(chunk("a"), error=late), ROW).outcome == "timeout"
    assert asked(Stand(error=late), ROW).outcome == "503"
    assert asked(Stand("a", error=late), {"prompt": "x"}, answers.prompt_parts).outcome == "timeout"


def test_a_prompts_answer_is_recorded_as_well() -> None:
    end = {"finish_reason": "length", "usage": {"prompt_tokens": 2, "completion_tokens": 2}}
    figures = asked(Stand("a", "b", end), {"prompt": "x"}, answers.prompt_parts)
    assert (figures.outcome, figures.finish_reason, figures.tokens) == ("ok", "length", 2)
    assert figures.refused is None
