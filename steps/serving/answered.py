"""What is known of one answer once it has ended: figures, without its text."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from steps.serving.served_version import ServedVersion


@dataclass(frozen=True)
class AnswerFigures:
    """What is known of one answer, without its text.

    Attributes:
        outcome: ``ok``, ``cancelled``, ``timeout`` (it had begun) or an HTTP status.
        seconds: from the request's arrival to the end.
        first_token_s: seconds to the first text; None where there was none.
        inter_token_s: mean seconds between the tokens of a whole answer; None where it has none.
        prompt_tokens: of the request; 0 where the answer did not end.
        tokens: of the answer.
        finish_reason: ``stop``, ``length`` or ``tool_calls``; with several choices, all of them.
        refused: whether it declines what was asked; None where nobody looked.
        format_valid: whether it is the JSON that was asked for; None where none was, or it was cut.
        concurrency: the most requests, this one included, that the version had at any moment of it.
    """

    outcome: str
    seconds: float
    first_token_s: float | None = None
    inter_token_s: float | None = None
    prompt_tokens: int = 0
    tokens: int = 0
    finish_reason: str | None = None
    refused: bool | None = None
    format_valid: bool | None = None
    concurrency: int = 1

    @classmethod
    def from_json(cls, text: str) -> "AnswerFigures":
        """The figures in a trace's metadata, which whoever may edit the experiment can write.

        Raises:
            ValueError: they are not such figures.
        """
        from pydantic import TypeAdapter, ValidationError

        known = {one.name for one in fields(cls)}
        try:
            plain = {key: value for key, value in json.loads(text).items() if key in known}
            read = TypeAdapter(cls).validate_json(json.dumps(plain), strict=True)
        except (ValidationError, AttributeError, RecursionError) as error:
            raise ValueError(f"not the figures of an answer: {type(error).__name__}") from error
        times = (read.seconds, read.first_token_s, read.inter_token_s)
        if not all(0 <= one < 1e9 for one in times if one is not None):  # NaN neither
            raise ValueError("not the figures of an answer: a time that is none")
        if min(read.prompt_tokens, read.tokens) < 0 or read.concurrency < 1:
            raise ValueError("not the figures of an answer: a count below 0")
        return read


@dataclass(frozen=True)
class Answered:
    """One request that a version was asked.

    Attributes:
        version: that was asked.
        alias: that the request went to.
        role: ``answered`` or ``shadow``.
        started: seconds since 1970.
        figures: of the answer.
        row: what was asked.
        text: what was answered.
    """

    version: ServedVersion
    alias: str
    role: str
    started: float
    figures: AnswerFigures
    row: Mapping[str, Any] = field(default_factory=dict, repr=False)
    text: str = field(default="", repr=False)


# header of `monitor`'s recorded prompts, which are not traffic: no trace is written for them
RECORDED_HEADER = "X-SLM-Recorded"


def nowhere(_: Answered) -> None:
    """Write no trace."""
