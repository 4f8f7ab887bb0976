"""What a worker may reply to each of its commands.

The model's own code runs in the worker's process and may write anything to its socket, so every
value is looked at here before the evaluation counts with it: its type, its bounds, and that its
text can be written as UTF-8.
"""

import math
import re
from collections.abc import Callable, Mapping
from typing import Any

Check = Callable[[Any], Any]  # gives the value as it is to be used, or raises ValueError

LONGEST_ANSWER = 1 << 22  # characters
LONGEST_WORDS = 20_000  # characters of a message or a detail; what is longer is cut
LARGEST_COUNT = 1 << 40  # tokens, token ids, positions
LARGEST_MEMORY = 1 << 50  # bytes
LONGEST_TIME = 1e9  # seconds
LARGEST_RATE = 1e15  # tokens a second, nats
MOST = 1 << 24  # values of a list
LONE_SURROGATES = re.compile(r"[\ud800-\udfff]")  # JSON can name them, UTF-8 cannot


class NotFiniteError(ValueError):
    """A figure is infinite or not a number where honest arithmetic may end there."""


def words(value: Any, longest: int = LONGEST_WORDS) -> str:
    """A text for a reader: whole characters, and not too many.

    Raises:
        ValueError: not a text.
    """
    if not isinstance(value, str):
        raise ValueError(f"{_kind(value)} where a text was expected")
    return LONE_SURROGATES.sub("\ufffd", value if len(value) <= longest else value[:longest] + "…")


def _kind(value: Any) -> str:
    return type(value).__name__


def _answer(value: Any) -> str:
    if isinstance(value, str) and len(value) > LONGEST_ANSWER:
        raise ValueError(
            f"an answer of {len(value):,} characters, at most {LONGEST_ANSWER:,} are read"
        )
    return words(value, LONGEST_ANSWER)


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError(f"{_kind(value)} where true or false was expected")
    return value


def _whole(most: int = LARGEST_COUNT, least: int = 0) -> Check:
    def check(value: Any) -> int:
        if not isinstance(value, int) or isinstance(value, bool):
            raise ValueError(f"{_kind(value)} where a whole number was expected")
        if not least <= value <= most:
            raise ValueError(f"a number that is not from {least:,} to {most:,}")
        return value

    return check


def _number(low: float, high: float) -> Check:
    def check(value: Any) -> float:
        if not isinstance(value, int | float) or isinstance(value, bool):
            raise ValueError(f"{_kind(value)} where a number was expected")
        if not low <= value <= high:  # neither holds for NaN
            raise ValueError(f"a number that is not from {low:g} to {high:g}")
        return value

    return check


def _figure(value: Any) -> float:
    """A figure of arithmetic on weights, which may overflow in an honest build too."""
    if isinstance(value, float) and not math.isfinite(value):
        raise NotFiniteError("the logits give a figure that is infinite or not a number")
    checked: float = _number(-LARGEST_RATE, LARGEST_RATE)(value)
    return checked


def _optional(check: Check) -> Check:
    return lambda value: None if value is None else check(value)


def _list(check: Check, least: int = 0) -> Check:
    def items(value: Any) -> list[Any]:
        if not isinstance(value, list):
            raise ValueError(f"{_kind(value)} where a list was expected")
        if not least <= len(value) <= MOST:
            raise ValueError(f"a list of {len(value):,} values, expected {least} to {MOST:,}")
        return [check(item) for item in value]

    return items


def _fields(**checks: Check) -> Check:
    def fields(value: Any) -> dict[str, Any]:
        if not isinstance(value, dict) or set(value) != set(checks):
            raise ValueError(f"{_kind(value)} where an object of {', '.join(checks)} was expected")
        known = {}
        for name, check in checks.items():
            try:
                known[name] = check(value[name])
            except NotFiniteError:
                raise
            except ValueError as error:
                raise ValueError(f"{name}: {error}") from None
        return known

    return fields


def _nothing(value: Any) -> None:
    if value is not None:
        raise ValueError(f"{_kind(value)} where nothing was expected")


def _ended(value: Any) -> dict[str, Any]:
    """What one of several requests ended in: an answer or an error, never both."""
    said = _fields(number=_COUNT, answer=_optional(_ANSWER), error=_optional(words))(value)
    if (said["answer"] is None) == (said["error"] is None):
        raise ValueError("an answer or an error was expected, one of the two")
    known: dict[str, Any] = said
    return known


_SECONDS, _COUNT, _RATE = _number(0, LONGEST_TIME), _whole(), _number(0, LARGEST_RATE)
_IDS = _list(_COUNT)
_ANSWER = _fields(
    text=_answer, finish_reason=_optional(words), completion_tokens=_COUNT, latency_s=_SECONDS
)
CHECKS: Mapping[str, Check] = {
    "load": _fields(ready_s=_SECONDS),
    "answer": _ANSWER,
    "answer_next": _ended,
    "prompt_tokens": _optional(_COUNT),
    "conformance": _list(_fields(name=words, passed=_flag, limit=_optional(words), detail=words)),
    "stream": _fields(
        ttft_s=_SECONDS,
        itl_s=_list(_SECONDS),
        total_s=_SECONDS,
        tokens=_COUNT,
        decode_tokens_per_second=_RATE,
        streamed=_flag,
    ),
    "timed_prompt": _COUNT,
    "burst": _fields(tokens=_COUNT, seconds=_number(1e-12, LONGEST_TIME)),
    "open_meter": _fields(vocabulary=_COUNT, bos=_IDS, context=_whole(least=-1), borders=_IDS),
    "tokenize": _IDS,
    "render": _optional(_IDS),
    "write_logits": _nothing,
    "compare_logits": _fields(
        kl=_list(_figure, least=1),
        agree=_list(_figure, least=1),
        nll=_list(_figure),
        nll_reference=_list(_figure),
    ),
    "continue_greedily": _IDS,
    "peak_rss": _whole(LARGEST_MEMORY),
}


def checked(command: str, result: Any) -> Any:
    """The result of a command, its texts fit to be written.

    Raises:
        NotFiniteError: a comparison of logits ended in infinities.
        ValueError: no worker of ours says this.
    """
    return CHECKS[command](result)
