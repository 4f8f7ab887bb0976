"""The model that is tested, how it is asked, and what its answers are read with."""

from collections.abc import Callable
from functools import cached_property
from typing import Any

import pandas as pd
from mlflow.exceptions import MlflowException

QUESTION = "Name the days of the week."
TOKENS = 10  # length of most answers here: long enough to stop in, short enough for a slow model


class BrokenError(Exception):
    """The model does not pass a check."""


class LimitError(Exception):
    """The model refuses, clearly, what a check allows it to refuse."""


def expect(condition: bool, detail: str) -> None:
    if not condition:
        raise BrokenError(detail)


def completions_of(response: Any) -> list[dict[str, Any]]:
    """The completions of a response: one dictionary a row."""
    if not isinstance(response, list) or not all(isinstance(item, dict) for item in response):
        raise BrokenError(
            f"predict returned {type(response).__name__}, expected a list with one completion a row"
        )
    return response


def chat(model: Any, row: dict[str, Any]) -> dict[str, Any]:
    """One completion for one row, sent as a frame."""
    answers = completions_of(model.predict(pd.DataFrame([row])))
    if len(answers) != 1:
        raise BrokenError(f"{len(answers)} completions for one row")
    return answers[0]


def text(completion: dict[str, Any]) -> str:
    """Reasoning and content of a completion's first choice."""
    return text_of(completion["choices"][0]["message"])


def text_of(message: dict[str, Any]) -> str:
    """Reasoning and content of a message or of a streamed delta."""
    return str(message.get("reasoning_content") or "") + str(message.get("content") or "")


def expect_sum(usage: dict[str, Any]) -> None:
    expect(
        usage["prompt_tokens"] + usage["completion_tokens"] == usage["total_tokens"],
        f"usage does not add up: {usage}",
    )


def reaches_limit_or_stops(answer: dict[str, Any], limit: int) -> bool:
    """Whether an answer used its limit, or ended by itself before."""
    used = int(answer["usage"]["completion_tokens"])
    return used == limit or (used < limit and answer["choices"][0]["finish_reason"] == "stop")


def capabilities(model: Any) -> dict[str, Any]:
    """What a logged model says of itself: ``limits`` and ``template``; empty for models that were
    logged by others.
    """
    metadata: dict[str, Any] = model.metadata.metadata or {}
    return dict(metadata.get("capabilities") or {})


def user(content: str) -> list[dict[str, str]]:
    """A conversation of one question."""
    return [{"role": "user", "content": content}]


class ModelUnderTest:
    """A loaded pyfunc model, and answers that several checks need."""

    def __init__(self, loaded: Any, concurrency: int) -> None:
        self.loaded, self.concurrency = loaded, concurrency

    def row(self, content: str = QUESTION, **settings: Any) -> dict[str, Any]:
        """A greedy request, with the model's reasoning off where its template has a switch."""
        thinking = (capabilities(self.loaded).get("template") or {}).get("thinking") or {}
        switch = thinking.get("switch")
        return {
            "messages": user(content),
            "temperature": 0.0,
            "max_tokens": TOKENS,
            **({"chat_template_kwargs": {switch: False}} if switch else {}),
            **settings,
        }

    def ask(self, content: str = QUESTION, **settings: Any) -> dict[str, Any]:
        return chat(self.loaded, self.row(content, **settings))

    def predict(self, *rows: dict[str, Any]) -> Any:
        """The response to rows in one frame, as users send them."""
        return self.loaded.predict(pd.DataFrame(list(rows)))

    @property
    def limits(self) -> dict[str, Any]:
        return dict(capabilities(self.loaded).get("limits") or {})

    @cached_property
    def greedy(self) -> dict[str, Any]:
        return self.ask()

    @property
    def columns(self) -> set[str]:
        schema = self.loaded.metadata.get_input_schema()
        return set(schema.input_names()) if schema and schema.has_input_names() else set()

    @property
    def streams(self) -> bool:
        return bool(self.loaded.metadata.flavors["python_function"].get("streamable", False))


def refusal(call: Callable[[], Any]) -> str:
    """Message of the clear error that ``call`` must end in: a 400 over HTTP, never a 500."""
    try:
        response = call()
    except MlflowException as error:
        status = error.get_http_status_code()
        if status != 400:
            raise BrokenError(
                f"refused with {error.error_code} (HTTP {status}), expected a 400: {error}"
            ) from error
        return f"{error}"
    raise BrokenError(f"accepted: {str(response)[:120]}")


def answer_or_limit(call: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """The answer of ``call``; a 400 is the model's limit."""
    try:
        return call()
    except MlflowException as error:
        if error.get_http_status_code() == 400:
            raise LimitError(str(error)[:200]) from error
        raise
