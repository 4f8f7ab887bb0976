"""The chat contract's table: a model that holds it, and one violation after another that must be seen by the right row."""

import copy
import importlib.util
import itertools
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from steps.scoring.conformance import TABLE, Row, complete, conformance

Change = Callable[[dict[str, Any], dict[str, Any]], dict[str, Any]]


@pytest.fixture(scope="module")
def clerk_module() -> ModuleType:
    """The hand-written model's file, loaded as plain Python."""
    spec = importlib.util.spec_from_file_location("clerk_for_conformance", Path(__file__).with_name("models") / "clerk.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


class Loaded:
    """Looks like a loaded pyfunc; ``change`` spoils an answer (request row, completion) and ``prepare`` a request."""

    def __init__(
        self, module: ModuleType, change: Change | None = None, prepare: Callable[[dict[str, Any]], dict[str, Any]] | None = None
    ) -> None:
        self.clerk = module.Clerk()
        self.clerk.load_context(SimpleNamespace(model_config={"mood": "good"}))
        self.change, self.prepare = change, prepare
        columns = ["messages", "temperature", "max_tokens"]
        schema = SimpleNamespace(has_input_names=lambda: True, input_names=lambda: columns)
        self.metadata = SimpleNamespace(
            flavors={"python_function": {"streamable": True}}, metadata={"context_length": 4096}, get_input_schema=lambda: schema
        )

    def predict(self, data: Any) -> Any:
        import pandas as pd

        rows = [data] if isinstance(data, dict) else data.to_dict(orient="records")
        if self.prepare is not None:
            rows = [self.prepare(dict(row)) for row in rows]
        answers = self.clerk.predict(None, pd.DataFrame(rows))
        return [self.change(row, copy.deepcopy(answer)) for row, answer in zip(rows, answers, strict=True)] if self.change else answers

    def predict_stream(self, row: dict[str, Any]) -> Iterator[dict[str, Any]]:
        yield from self.clerk.predict_stream(None, row)


def broken(rows: list[Row]) -> set[str]:
    return {row.name for row in rows if not row.passed and row.limit is None}


def test_a_model_that_holds_it(clerk_module: ModuleType) -> None:
    rows = conformance(Loaded(clerk_module))
    assert broken(rows) == set() and complete(rows)
    assert [row.name for row in rows if row.limit] == ["prompt column"]
    assert len(rows) == len(TABLE)
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
        "messages": [{"role": "user", "content": message["content"][:1000]} for message in messages or []]
        or [{"role": "user", "content": "?"}]
    }


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
            {"temperature 0 repeats", "seed", "dictionary input", "max_tokens", "top_p", "top_k", "streaming equals whole", "stop strings"},
        ),
        (None, dropping("seed"), {"seed"}),
        (None, dropping("temperature"), {"seed", "negative temperature is refused"}),
        (None, dropping("top_k"), {"top_k"}),
        (None, dropping("top_p"), {"top_p"}),
        (None, dropping("n"), {"n choices"}),
        (None, dropping("stop"), {"stop strings"}),
        (None, tolerant, {"no messages is refused", "unknown role is refused", "over-long prompt is refused"}),
    ],
)
def test_violations_are_seen(
    clerk_module: ModuleType, change: Change | None, prepare: Callable[[dict[str, Any]], dict[str, Any]] | None, rows: set[str]
) -> None:
    found = conformance(Loaded(clerk_module, change, prepare))
    assert rows <= broken(found), broken(found)
    assert len(broken(found)) <= len(rows) + 2  # it is seen where it is, not everywhere
    assert not complete(found)


def test_only_some_rows(clerk_module: ModuleType) -> None:
    rows = conformance(Loaded(clerk_module), only=frozenset({"stop strings", "usage adds up"}))
    assert [row.name for row in rows] == ["usage adds up", "stop strings"]
