"""The chat contract as a table of checks, and a function that runs them on a loaded model.

A package that imports nothing of ``steps``: the worker of an evaluation, a canary and the tests of
the wrappers load it by its path, without the project.

    rows = conformance(mlflow.pyfunc.load_model("models:/…"))
    rows = conformance(model, only=("completion shape", "usage adds up"))
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from . import completions, prompts, settings
from .model_under_test import BrokenError, LimitError, ModelUnderTest, capabilities, chat

__all__ = ["CHECKS", "Row", "Tried", "capabilities", "chat", "complete", "conformance"]

# A check that may be refused ends in a named limit when the model says so with a 400; every other
# one must hold.
CHECKS: dict[str, Callable[[ModelUnderTest], str]] = {
    "completion shape": completions.shape,
    "public model name": completions.public_name,
    "dictionary input": completions.dictionary,
    "temperature 0 repeats": settings.greedy_repeats,
    "seed": settings.seed,
    "top_p": settings.top_p,
    "top_k": settings.top_k,
    "max_tokens": settings.max_tokens,
    "finish_reason": completions.finish_reason,
    "usage adds up": completions.usage,
    "stop strings": settings.stop,
    "n choices": settings.several,
    "rows keep their settings": completions.batch,
    "unicode": prompts.unicode,
    "empty message": prompts.empty_content,
    "system and history": prompts.turns,
    "no messages is refused": prompts.no_messages,
    "unknown role is refused": prompts.wrong_role,
    "negative temperature is refused": prompts.wrong_temperature,
    "max_tokens 0 is refused": prompts.wrong_max_tokens,
    "over-long prompt is refused": prompts.overlong,
    "past the borders": prompts.past_borders,
    "response_format json_object": settings.json_answer,
    "penalties are accepted": settings.penalty,
    "concurrent requests": completions.concurrency,
    "streaming equals whole": completions.streaming,
    "prompt column": completions.prompt_column,
}


@dataclass(frozen=True)
class Row:
    """How a model did on one check; ``limit`` is the model's own words where it declares the check
    beyond it.
    """

    name: str
    passed: bool
    limit: str | None
    detail: str


class Tried(Protocol):
    """A row of the table, made here or read from a report."""

    @property
    def passed(self) -> bool: ...

    @property
    def limit(self) -> str | None: ...


def conformance(
    model: Any, *, only: Collection[str] | None = None, concurrency: int = 8
) -> list[Row]:
    """Run the checks of the contract, or those named.

    Args:
        model: what ``mlflow.pyfunc.load_model`` returned.
        only: names of checks; None runs all. They run in the order of ``CHECKS``.
        concurrency: requests that ``concurrent requests`` sends at once.

    Raises:
        ValueError: ``only`` names a check that is not there.
    """
    if unknown := {*(only or ())} - {*CHECKS}:
        raise ValueError(f"only={sorted(unknown)}: expected some of {', '.join(CHECKS)}")
    tested = ModelUnderTest(model, concurrency)
    return [
        _row(name, check, tested) for name, check in CHECKS.items() if only is None or name in only
    ]


def _row(name: str, check: Callable[[ModelUnderTest], str], model: ModelUnderTest) -> Row:
    try:
        return Row(name, True, None, check(model))
    except LimitError as limit:
        return Row(name, False, str(limit), "refused clearly")
    except MemoryError:
        raise
    except BrokenError as error:
        return Row(name, False, None, str(error)[:300])
    except Exception as error:  # noqa: BLE001 - whatever the model raises is the row's result
        return Row(name, False, None, f"{type(error).__name__}: {error}"[:300])


def complete(rows: Sequence[Tried]) -> bool:
    """Whether every row passed or is a named limit."""
    return bool(rows) and all(row.passed or row.limit is not None for row in rows)
