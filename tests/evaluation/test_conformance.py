"""The chat contract's table: a model that holds it, and one violation after another that must be
seen by the right row.
"""

import copy
import importlib.util
import itertools
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from steps.evaluation.conformance import CHECKS, Row, complete, conformance

Change = Callable[[dict[str, Any], dict[str, Any]], dict[str, Any]]


@pytest.fixture(scope="module")
def clerk_module() -> ModuleType:
    """The hand-written model's file, loaded as plain Python."""
    spec = importlib.util.spec_from_file_location(
        "clerk_for_conformance", Path(__file__).with_name("models") / "clerk.py"
    )
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


class Loaded:
    """Looks like a loaded pyfunc; ``change`` spoils an answer (request row, completion) and
    ``prepare`` a request.
    """

    def __init__(
        self,
        module: ModuleType,
        change: Change | None = None,
        prepare: Callable[[dict[str, Any]], dict[str, Any]] | None = None,
    ) -> None:
        self.clerk = module.Clerk()
        self.clerk.load_context(SimpleNamespace(model_config={"mood": "good"}))
        self.change, self.prepare = change, prepare
        columns = ["messages", "temperature", "max_tokens"]
        schema = SimpleNamespace(has_input_names=lambda: True, input_names=lambda: columns)
        self.metadata = SimpleNamespace(
            flavors={"python_function": {"streamable": True}},
            metadata={"context_length": 4096},
            get_input_schema=lambda: schema,
        )

    def predict(self, data: Any) -> Any:
        import pandas as pd

        rows = [data] if isinstance(data, dict) else data.to_dict(orient="records")
        if self.prepare is not None:
            rows = [self.prepare(dict(row)) for row in rows]
        answers = self.clerk.predict(None, pd.DataFrame(rows))
        return (
            [
                self.change(row, copy.deepcopy(answer))
                for row, answer in zip(rows, answers, strict=True)
            ]
            if self.change
            else answers
        )

    def predict_stream(self, row: dict[str, Any]) -> Iterator[dict[str, Any]]:
        yield from self.clerk.predict_stream(None, row)


def broken(rows: list[Row]) -> set[str]:
    return {row.name for row in rows if not row.passed and row.limit is None}


def test_a_model_that_holds_it(clerk_module: ModuleType) -> None:
    rows = conformance(Loaded(clerk_module))
    assert broken(rows) == set() and complete(rows)
    assert [row.name for row in rows if row.limit] == ["prompt column"]
    assert len(rows) == len(CHECKS)
    assert not complete([])


def with_usage(_: dict[str, Any], answer: dict[str, Any]) -> dict[str, Any]:
    answer["usage"]["total_tokens"] += 1
    return answer


def with_path(_: dict[str, Any], answer: dict[str, Any]) -> dict[str, Any]:
    return answer | {"model": "/home/somebody/model"}


def without_id(_: dict[str, Any], answer: dict[str, Any]) -> dict[str, Any]:
    del answer["id"]
    return answer


def always_stop(_: dict[str, Any], answer: dict[str, Any]) -> dict[str, Any]:
    for choice in answer["choices"]:
        choice["finish_reason"] = "stop"
    return answer


def with_stop_word(row: dict[str, Any], answer: dict[str, Any]) -> dict[str, Any]:
    if isinstance(row.get("stop"), list):
        answer["choices"][0]["message"]["content"] += row["stop"][0]
    return answer


COUNTER = itertools.count()


def never_twice(_: dict[str, Any], answer: dict[str, Any]) -> dict[str, Any]:
    answer["choices"][0]["message"]["content"] += str(next(COUNTER))
    return answer


def dropping(*names: str) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """Requests whose settings are silently ignored."""
    return lambda row: {key: value for key, value in row.items() if key not in names}


def tolerant(row: dict[str, Any]) -> dict[str, Any]:
    """Mends what must be refused."""
    messages = row.get("messages")
    return row | {
        "messages": (
            [{"role": "user", "content": message["content"][:1000]} for message in messages or []]
            or [{"role": "user", "content": "?"}]
        )
    }


def rambling(row: dict[str, Any], answer: dict[str, Any]) -> dict[str, Any]:
    if row.get("response_format"):
        answer["choices"][0]["message"]["content"] = (
            "Sure! Here is a JSON object with the key a, as you wished:"
        )
        answer["choices"][0]["finish_reason"] = "length"
    return answer


def last_message_only(row: dict[str, Any]) -> dict[str, Any]:
    return row | {"messages": list(row["messages"])[-1:]}


def without_system(row: dict[str, Any]) -> dict[str, Any]:
    return row | {
        "messages": [message for message in row["messages"] if message["role"] != "system"]
    }


def refuses(*names: str) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """Requests that end in an error of the server, not of the client."""

    def prepare(row: dict[str, Any]) -> dict[str, Any]:
        if any(row.get(name) for name in names):
            raise RuntimeError(f"no such setting: {names}")
        return row

    return prepare


def only_ascii(row: dict[str, Any]) -> dict[str, Any]:
    row["messages"][-1]["content"].encode("ascii")
    return row


def needs_text(row: dict[str, Any]) -> dict[str, Any]:
    if row["messages"] and not row["messages"][-1]["content"]:
        raise RuntimeError("no text")
    return row


def at_least_one(row: dict[str, Any]) -> dict[str, Any]:
    return row | {"max_tokens": max(1, row.get("max_tokens") or 1)}


def twice_as_long(row: dict[str, Any], answer: dict[str, Any]) -> dict[str, Any]:
    if row.get("max_tokens") == 3:
        answer["usage"]["completion_tokens"] += 1
        answer["usage"]["total_tokens"] += 1
    return answer


BUSY = threading.Lock()


def one_at_a_time(row: dict[str, Any]) -> dict[str, Any]:
    """Drops a request that comes while another is answered."""
    if not BUSY.acquire(blocking=False):
        raise RuntimeError("busy")
    try:
        time.sleep(0.02)
    finally:
        BUSY.release()
    return row


@pytest.mark.parametrize(
    ("change", "prepare", "rows"),
    [
        (with_usage, None, {"usage adds up", "n choices"}),
        (with_path, None, {"public model name"}),
        (without_id, None, {"completion shape"}),
        (always_stop, None, {"finish_reason"}),
        (with_stop_word, None, {"stop strings"}),
        (
            never_twice,
            None,
            {
                "temperature 0 repeats",
                "seed",
                "dictionary input",
                "max_tokens",
                "top_p",
                "top_k",
                "streaming equals whole",
                "stop strings",
            },
        ),
        (None, dropping("seed"), {"seed"}),
        (None, dropping("temperature"), {"seed", "negative temperature is refused"}),
        (None, dropping("top_k"), {"top_k"}),
        (None, dropping("top_p"), {"top_p"}),
        (None, dropping("n"), {"n choices"}),
        (None, dropping("stop"), {"stop strings"}),
        (rambling, None, {"response_format json_object"}),
        (None, last_message_only, {"system and history"}),
        (None, without_system, {"system and history"}),
        (None, refuses("frequency_penalty", "presence_penalty"), {"penalties are accepted"}),
        (None, only_ascii, {"unicode"}),
        (None, needs_text, {"empty message"}),
        (None, at_least_one, {"max_tokens 0 is refused"}),
        (twice_as_long, None, {"max_tokens"}),
        (None, one_at_a_time, {"concurrent requests"}),
        (
            None,
            tolerant,
            {"no messages is refused", "unknown role is refused", "over-long prompt is refused"},
        ),
    ],
)
def test_violations_are_seen(
    clerk_module: ModuleType,
    change: Change | None,
    prepare: Callable[[dict[str, Any]], dict[str, Any]] | None,
    rows: set[str],
) -> None:
    found = conformance(Loaded(clerk_module, change, prepare))
    assert rows <= broken(found), broken(found)
    assert len(broken(found)) <= len(rows) + 2  # it is seen where it is, not everywhere
    assert not complete(found)


class FirstRowsLimit(Loaded):
    """Answers a whole batch under the first row's limit, as MLflow's transformers flavor does."""

    def predict(self, data: Any) -> Any:
        if not isinstance(data, dict) and len(data) > 1:
            data = data.assign(max_tokens=data.iloc[0]["max_tokens"])
        return super().predict(data)


class NoDictionaries(Loaded):
    def predict(self, data: Any) -> Any:
        if isinstance(data, dict):
            raise TypeError("a frame, please")
        return super().predict(data)


class LosesWords(Loaded):
    """Its stream leaves out a piece."""

    def predict_stream(self, row: dict[str, Any]) -> Iterator[dict[str, Any]]:
        chunks = list(super().predict_stream(row))
        yield from (*chunks[:2], *chunks[3:])


class OnePrompt(Loaded):
    """Has the prompt column, and answers only its first row."""

    def __init__(self, module: ModuleType) -> None:
        super().__init__(module)
        self.metadata.get_input_schema = lambda: SimpleNamespace(
            has_input_names=lambda: True, input_names=lambda: ["messages", "prompt"]
        )

    def predict(self, data: Any) -> Any:
        return (
            ["three"]
            if not isinstance(data, dict) and "prompt" in data.columns
            else super().predict(data)
        )


class Bordered(Loaded):
    """Says that its attention has a window of 64 tokens."""

    def __init__(self, module: ModuleType, change: Change | None = None) -> None:
        super().__init__(module, change)
        self.metadata.metadata["capabilities"] = {
            "limits": {"context_length": 4096, "windows": [64], "rope_border": None}
        }


class FailsPastItsWindow(Bordered):
    def predict(self, data: Any) -> Any:
        answers = super().predict(data)
        if any(answer["usage"]["prompt_tokens"] > 64 for answer in answers):
            raise RuntimeError("the cache ends here")
        return answers


@pytest.mark.parametrize(
    ("kind", "row"),
    [
        (FailsPastItsWindow, "past the borders"),
        (FirstRowsLimit, "rows keep their settings"),
        (NoDictionaries, "dictionary input"),
        (LosesWords, "streaming equals whole"),
        (OnePrompt, "prompt column"),
    ],
)
def test_violations_of_shape_are_seen(
    clerk_module: ModuleType, kind: type[Loaded], row: str
) -> None:
    assert broken(conformance(kind(clerk_module))) == {row}


def test_a_border_is_crossed(clerk_module: ModuleType) -> None:
    lengths: list[int] = []

    def count(_: dict[str, Any], answer: dict[str, Any]) -> dict[str, Any]:
        lengths.append(answer["usage"]["prompt_tokens"])
        return answer

    (row,) = conformance(Bordered(clerk_module, count), only={"past the borders"})
    assert row.passed and row.detail == "answers across [64]"
    assert any(54 < length <= 64 for length in lengths) and any(
        64 < length < 4096 for length in lengths
    )


def test_a_missing_system_role_is_a_named_limit(clerk_module: ModuleType) -> None:
    from mlflow.exceptions import MlflowException
    from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE

    def no_system(row: dict[str, Any]) -> dict[str, Any]:
        if any(message["role"] == "system" for message in row["messages"]):
            raise MlflowException(
                "this template has no system role", error_code=INVALID_PARAMETER_VALUE
            )
        return row

    (row,) = conformance(Loaded(clerk_module, prepare=no_system), only={"system and history"})
    assert not row.passed and row.limit == "no system role: this template has no system role"
    no_history = conformance(
        Loaded(clerk_module, prepare=lambda row: no_system(last_message_only(row))),
        only={"system and history"},
    )
    assert broken(no_history) == {"system and history"}


def test_every_row_has_a_violation() -> None:
    """A row that nothing here breaks might not see anything."""
    marks: list[list[Any]] = [
        vars(test)["pytestmark"]
        for test in (test_violations_are_seen, test_violations_of_shape_are_seen)
    ]
    by_answer = {row for mark in marks[0] for _, _, rows in mark.args[1] for row in rows}
    by_shape = {row for mark in marks[1] for _, row in mark.args[1]}
    assert {*CHECKS} == by_answer | by_shape


def test_only_the_named_checks_run(clerk_module: ModuleType) -> None:
    asked: list[dict[str, Any]] = []

    def note(row: dict[str, Any]) -> dict[str, Any]:
        asked.append(row)
        return row

    rows = conformance(
        Loaded(clerk_module, prepare=note), only=("stop strings", "temperature 0 repeats")
    )
    assert [row.name for row in rows] == ["temperature 0 repeats", "stop strings"]
    assert len(asked) == 3  # the greedy answer, once for both, and one more each
    assert conformance(Loaded(clerk_module), only=()) == []
    with pytest.raises(ValueError, match=r"only=\['streams'\]: expected some of completion shape"):
        conformance(Loaded(clerk_module), only=("streams",))


def test_concurrency_is_chosen(clerk_module: ModuleType) -> None:
    (row,) = conformance(Loaded(clerk_module), only=("concurrent requests",), concurrency=3)
    assert row.passed and row.detail == "3 threads at once get their own answers"
