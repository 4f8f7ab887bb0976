"""What breaks the ONNX variant, or does not: bad requests and files, full queues, forks."""

import json
import os
import pickle
import shutil
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from mlflow.exceptions import MlflowException

from steps.wrappers.served.backend import Job
from steps.wrappers.served.exchange import Exchange
from steps.wrappers.served.request import Request
from tests.wrappers.doubles import SayingModel
from tests.wrappers.subjects import NAME, Context, Folders, Open, say, text

STORY = "Tell me a short story about a fox."


def ask(model: Any, content: str = STORY, **settings: Any) -> dict[str, Any]:
    [answer] = model.predict(None, say(content, **settings))
    assert isinstance(answer, dict)
    return answer


HARSH = [
    {"top_k": 60_000, "temperature": 1},
    {"top_k": 2**31, "temperature": 1, "seed": 1},
    {"top_k": 2**70, "temperature": 1},
    {"top_p": 1e-50, "temperature": 1},
    {"temperature": 1e-40},
    {"temperature": 5e-324, "seed": 1},
    {"repetition_penalty": 0.01},
    {"repetition_penalty": 10, "temperature": 2, "top_k": 1, "top_p": 0},
    {"frequency_penalty": -2, "presence_penalty": 2, "temperature": 2},
]


@pytest.mark.parametrize("settings", HARSH, ids=str)
@pytest.mark.parametrize("rows", [1, 3])
def test_settings_at_the_edge_are_answered(
    tiny_model: Any, settings: dict[str, Any], rows: int
) -> None:
    backend = tiny_model.scheduler().backend
    answers = tiny_model.predict(
        None, [{"prompt": "One, two,", "max_tokens": 3, **settings}] * rows
    )
    assert all(isinstance(answer, str) for answer in answers)
    assert tiny_model.scheduler().backend is backend


def test_what_the_engine_does_not_take_fails_one_answer(
    tiny: Folders, open_onnx: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A vocabulary believed to be larger than it is stands for whatever else the engine refuses."""
    model = open_onnx(tiny.onnx("fp32"), engine="onnxruntime-genai")
    backend = model.scheduler().backend
    monkeypatch.setattr(backend.generators, "vocabulary", 10**6)
    monkeypatch.setattr(backend.batches, "vocabulary", 10**6)
    plain = {"prompt": "One, two,", "max_tokens": 3}
    bad = {**plain, "top_k": 60_000, "temperature": 1}
    expected = model.predict(None, plain)
    for rows in ([bad], [plain, bad, plain], [bad, bad], [{**bad, "seed": 1}, plain]):
        with pytest.raises(
            MlflowException, match=r"could not finish this answer: top_k \(60000\)"
        ) as caught:
            model.predict(None, rows)
        assert caught.value.get_http_status_code() == 500
        assert model.predict(None, [plain, plain]) == expected * 2
    assert model.scheduler().backend is backend


@pytest.mark.parametrize("engine", ["onnxruntime", "onnxruntime-genai"])
def test_a_step_that_fails_ends_its_own_answers(
    tiny: Folders, open_onnx: Open, monkeypatch: pytest.MonkeyPatch, engine: str
) -> None:
    """A prompt of a certain length stands for whatever the engine does not compute."""
    from steps.wrappers.served.onnx_generators import GeneratorRow, GeneratorRows
    from steps.wrappers.served.onnx_graph import OnnxGraph, Row

    model = open_onnx(tiny.onnx("fp32"), engine=engine)
    backend = model.scheduler().backend
    stream = model.predict_stream(
        None, {"prompt": "One, two,", "max_tokens": 400, "seed": 1, "temperature": 1}
    )
    next(stream)
    graphs, generators = OnnxGraph.prefill, GeneratorRows.prefill
    refused = len(model.tokenizer.encode_prompt("A"))

    def choosy_graph(graph: OnnxGraph, cache: Any, slot: int, row: Row, **settings: Any) -> Any:
        if len(row.tokens) == refused:
            raise RuntimeError("no memory")
        return graphs(graph, cache, slot, row, **settings)

    def choosy_generators(rows: GeneratorRows, row: GeneratorRow) -> None:
        if len(row.pending) == refused:
            raise RuntimeError("no memory")
        generators(rows, row)

    monkeypatch.setattr(OnnxGraph, "prefill", choosy_graph)
    monkeypatch.setattr(GeneratorRows, "prefill", choosy_generators)
    with pytest.raises(MlflowException, match="could not finish this answer: no memory"):
        model.predict(None, {"prompt": "A", "max_tokens": 7})
    assert len(list(stream)) > 300
    assert model.scheduler().backend is backend


def test_a_stream_of_more_choices_than_the_queue_holds_is_refused(
    tiny: Folders, open_onnx: Open
) -> None:
    model = open_onnx(tiny.onnx("fp32"), max_queue=3)
    with pytest.raises(MlflowException, match="n=4: expected at most 3") as caught:
        next(model.predict_stream(None, say("Hello", n=4, temperature=1)))
    assert caught.value.get_http_status_code() == 400


def test_min_tokens_that_do_not_fit_are_refused(tiny_model: Any) -> None:
    settings = {"max_tokens": None, "min_tokens": 200}
    with pytest.raises(
        MlflowException, match=r"min_tokens=200: expected at most 1[0-9]*, as the prompt has"
    ):
        tiny_model.predict(None, {"prompt": "a " * 1900, **settings})


def test_a_scheduler_that_died_is_heard_of(tiny: Folders, open_onnx: Open) -> None:
    """Its last error is raised, not handed back as an answer; without one, that is said."""
    import queue

    model = open_onnx(tiny.onnx("fp32"))
    scheduler = model.scheduler()
    model.close()
    out: queue.SimpleQueue[Any] = queue.SimpleQueue()
    out.put((0, "error", MlflowException("the engine failed")))
    with pytest.raises(MlflowException, match="the engine failed"):
        scheduler.next_reply(out)
    with pytest.raises(MlflowException, match="the engine is gone"):
        scheduler.next_reply(out)


def test_an_overlong_prompt_says_how_long_and_what_fits(fp32: Any) -> None:
    with pytest.raises(
        MlflowException, match=r"'\d+ tokens': expected at most 8191 tokens"
    ) as caught:
        ask(fp32, "word " * 9000)
    assert caught.value.get_http_status_code() == 400
    with pytest.raises(MlflowException, match=r"max_tokens=8190: expected at most \d+"):
        ask(fp32, max_tokens=8190)
    assert text(ask(fp32, "Hello"))


def test_a_flipped_byte_is_named(smollm: Folders, tmp_path: Path) -> None:
    import shutil

    from steps.wrappers.served.onnx_model import OnnxChatModel
    from steps.wrappers.weights import Weights

    folder = tmp_path / "onnx"
    shutil.copytree(smollm.onnx("int4"), folder)
    sums = tmp_path / "checksums.json"
    sums.write_text(json.dumps(Weights.all_in(folder, "x").checksums()))
    with (folder / "model.onnx.data").open("r+b") as stream:
        stream.seek(12345)
        byte = stream.read(1)
        stream.seek(12345)
        stream.write(bytes([byte[0] ^ 1]))
    context = Context({"onnx-model": str(folder), "checksums": str(sums)}, {"name": NAME})
    with pytest.raises(MlflowException, match=r"damaged model: model\.onnx\.data has sha256"):
        OnnxChatModel().load_context(context)
    (folder / "tokenizer.json").unlink()
    with pytest.raises(
        MlflowException, match=r"damaged model: (model\.onnx\.data|tokenizer\.json)"
    ):
        OnnxChatModel().load_context(context)


@pytest.mark.parametrize("provider", ["cuda", "dml", "nonsense"])
def test_a_missing_execution_provider_is_clear(
    smollm: Folders, open_onnx: Open, provider: str
) -> None:
    with pytest.raises(MlflowException, match=f"execution_provider='{provider}'"):
        open_onnx(smollm.onnx("int4"), execution_provider=provider)


@pytest.mark.parametrize(
    ("key", "value"),
    [("thread", 2), ("threads", "2"), ("threads", -1), ("max_queue", 0), ("request_timeout", 0)],
)
def test_a_bad_model_config_is_named(
    smollm: Folders, open_onnx: Open, key: str, value: object
) -> None:
    with pytest.raises(MlflowException, match=f"model_config.{key}="):
        open_onnx(smollm.onnx("int4"), **{key: value})


def test_threads_can_be_chosen_at_load(smollm: Folders, open_onnx: Open) -> None:
    assert text(ask(open_onnx(smollm.onnx("int4"), threads=1), "Hello", max_tokens=4))


def test_a_deadline_ends_a_request_and_not_the_model(smollm: Folders, open_onnx: Open) -> None:
    model = open_onnx(smollm.onnx("int4"), request_timeout=4.0)
    with pytest.raises(MlflowException, match="no answer within request_timeout") as caught:
        ask(model, max_tokens=6000, min_tokens=6000)
    assert caught.value.get_http_status_code() == 503
    assert text(ask(model, "Hello", max_tokens=1))


def test_time_runs_from_when_a_request_arrives(
    smollm: Folders, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not from when it was checked and tokenised; behind a server, nor from when later rows of a
    frame are queued, for whom a batch job waits.
    """
    model = SayingModel()
    model.says = "Noon."
    config = {"name": NAME, "request_timeout": 50.0, "max_queue": 4}
    model.load_context(Context({"onnx-model": str(smollm.onnx("int4"))}, config))
    backend, exchange = model.scheduler().backend, model.exchange
    deadlines: list[float] = []
    checked: list[float] = []
    start = backend.start

    def noting(jobs: list[Job]) -> None:
        deadlines.extend(job.deadline for job in jobs)
        start(jobs)

    def timed(request: Request) -> Exchange:
        checked.append(time.monotonic())
        return exchange(request)

    monkeypatch.setattr(backend, "start", noting)
    monkeypatch.setattr(model, "exchange", timed)
    began = time.monotonic()
    frame = [say(f"Number {number}") for number in range(20)]
    model.predict(None, frame)
    assert len(deadlines) == 20
    assert len(set(deadlines[:4])) == 1, "of those that are queued at once"
    assert began <= deadlines[0] - 50 <= checked[0]
    assert min(deadlines[4:]) > deadlines[0]
    monkeypatch.setenv("_MLFLOW_IS_IN_SERVING_ENVIRONMENT", "true")
    deadlines.clear()
    model.predict(None, frame)
    assert len(deadlines) == 20
    assert len(set(deadlines)) == 1
    monkeypatch.delenv("_MLFLOW_IS_IN_SERVING_ENVIRONMENT")
    stream = model.predict_stream(None, say("And now?"))
    came = time.monotonic()
    assert len(list(stream)) > 2
    assert deadlines[-1] - 50 <= came
    model.close()


def test_a_full_queue_refuses_at_once(smollm: Folders, open_onnx: Open) -> None:
    model = open_onnx(smollm.onnx("int4"), max_queue=1, max_batch_size=1)
    streams = [model.predict_stream(None, say(STORY, max_tokens=500)) for _ in range(2)]
    next(streams[0])
    next(streams[0])  # it is being answered, so the queue is empty
    next(streams[1])  # its first chunk comes before its turn
    with pytest.raises(MlflowException, match="max_queue is 1") as caught:
        ask(model, "Hello", max_tokens=2)
    assert caught.value.get_http_status_code() == 429
    for stream in streams:
        stream.close()


def test_a_frame_longer_than_the_queue_is_answered(tiny: Folders, open_onnx: Open) -> None:
    model = open_onnx(tiny.onnx("fp32"), max_queue=3, max_batch_size=4)
    answers = model.predict(
        None, [{"prompt": f"Number {number}", "max_tokens": 1 + number % 5} for number in range(50)]
    )
    assert len(answers) == 50
    alone = model.predict(None, {"prompt": "Number 17", "max_tokens": 3})
    assert answers[17] == alone[0]


def test_stream_in_predict_is_refused(fp32: Any) -> None:
    with pytest.raises(MlflowException, match="call predict_stream"):
        ask(fp32, stream=True)


# --- processes


def test_a_pickled_copy_answers(smollm: Folders, open_onnx: Open) -> None:
    model = open_onnx(smollm.onnx("int4"))
    copy = pickle.loads(pickle.dumps(model))
    try:
        assert text(ask(copy, "Hello", max_tokens=4)) == text(ask(model, "Hello", max_tokens=4))
    finally:
        copy.close()


def test_a_forked_child_starts_its_own_engine(smollm: Folders, open_onnx: Open) -> None:
    model = open_onnx(smollm.onnx("int4"), threads=1)
    expected = text(ask(model, "Hello", max_tokens=4))
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        try:
            os.write(writer, text(ask(model, "Hello", max_tokens=4)).encode())
        finally:
            os._exit(0)
    os.close(writer)
    deadline = threading.Timer(60, os.kill, (child, 9))
    deadline.start()
    with os.fdopen(reader) as stream:
        answered = stream.read()
    os.waitpid(child, 0)
    deadline.cancel()
    assert answered == expected
    assert text(ask(model, "Hello", max_tokens=4)) == expected


def test_closing_frees_and_the_next_request_starts_anew(smollm: Folders, open_onnx: Open) -> None:
    model = open_onnx(smollm.onnx("int4"))
    model.close()
    model.close()
    assert text(ask(model, "Hello", max_tokens=4))


@pytest.mark.parametrize(
    ("file", "content", "said"),
    [
        ("genai_config.json", None, "genai_config.json: it cannot be read"),
        ("genai_config.json", b"{}", "genai_config.json: it cannot be read"),
        ("genai_config.json", b'{"model": {}}', "'context_length'"),
        ("genai_config.json", b'{"model": {"context_length": 2048}}', "decoder has no filename"),
        ("model.last.onnx", b"garbled", "model.last.onnx: onnxruntime cannot load it"),
        ("model.onnx.data", b"", "model.last.onnx: onnxruntime cannot load it"),
    ],
)
def test_a_damaged_folder_is_named(
    tiny: Folders, tmp_path: Path, file: str, content: bytes | None, said: str
) -> None:
    from steps.wrappers.served.onnx_model import OnnxChatModel

    folder = tmp_path / "onnx"
    shutil.copytree(tiny.onnx("fp32"), folder)
    (folder / file).unlink()
    if content is not None:
        (folder / file).write_bytes(content)
    with pytest.raises(MlflowException, match=f"damaged model: .*{said}"):
        OnnxChatModel().load_context(Context({"onnx-model": str(folder)}, {"name": NAME}))
