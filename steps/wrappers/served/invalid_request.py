"""How a request is refused, and what is done to values before they are looked at.

Part of the logged model, as every file of this folder: ``steps.wrappers.bundle`` joins them into
one, so none imports from ``steps``.
"""

import math
import os
from collections.abc import Iterator, Mapping, Sized
from typing import Any

from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE

# a longer text cannot fit any context and would only stall the tokenizer
MAX_REQUEST_CHARACTERS = 4_000_000
SHOWN = 200  # characters of a value, and of its field, in an error
# of values within values; no schema or message needs more, and Python's own recursion ends at about
# a thousand
MAX_DEPTH = 64
PLAIN_TYPES: frozenset[type] = frozenset({str, int, float, bool, type(None)})


def invalid_request(
    field: str, value: object, expected: str, cure: str | None = None
) -> MlflowException:
    """Build the error of a request that breaks the contract; a server answers status 400."""
    try:
        shown = repr(_beginning(value))
    except (ValueError, RecursionError):  # Python writes no integer of more than 4,300 digits
        shown = f"a {type(value).__name__} too large to show"
    field = field if len(field) <= SHOWN else f"{field[:SHOWN]}…"
    field = field.encode("utf-8", "backslashreplace").decode()  # half a surrogate pair is not text
    message = (
        f"{field}={shown if len(shown) <= SHOWN else shown[:SHOWN] + '…'}: expected {expected}"
    )
    return MlflowException(
        f"{message}; {cure}" if cure else message, error_code=INVALID_PARAMETER_VALUE
    )


def _beginning(value: object, left: Iterator[int] | None = None) -> object:
    """The part of a value that an error shows; writing out a large one would hold the GIL.

    Each item takes a character at least, so no more than ``SHOWN`` of them are of use; ``left``
    counts them down.
    """
    left = iter(range(SHOWN)) if left is None else left
    if isinstance(value, str | bytes):
        return value[: SHOWN + 1]
    if type(value) is dict:
        return {
            _beginning(key, left): _beginning(item, left)
            for _, (key, item) in zip(left, value.items(), strict=False)
        }
    if type(value) is list:
        return [_beginning(item, left) for _, item in zip(left, value, strict=False)]
    return value


def require_count(field: str, values: Sized, most: int, what: str) -> None:
    """Refuse more values than ``most``.

    Raises:
        MlflowException: naming how many there are.
    """
    if len(values) > most:
        raise invalid_request(field, f"{len(values)} {what}", f"at most {most}")


def require_characters(field: str, characters: int, most: int = MAX_REQUEST_CHARACTERS) -> None:
    """Refuse a longer text.

    Raises:
        MlflowException: saying how long it is.
    """
    if characters > most:
        raise invalid_request(field, f"{characters} characters", f"at most {most} characters")


def behind_server() -> bool:
    """Whether MLflow's scoring server calls, so that strangers may ask."""
    return os.environ.get("_MLFLOW_IS_IN_SERVING_ENVIRONMENT") == "true"


def characters_in(value: Any) -> int:
    """Characters of all texts in plain values that ``plain`` has seen."""
    if isinstance(value, str):
        return len(value)
    if isinstance(value, Mapping):
        return sum(len(key) + characters_in(item) for key, item in value.items())
    return sum(map(characters_in, value)) if isinstance(value, list) else 0


def absent(value: object) -> bool:
    """Whether a cell holds nothing: frames put NaN or None where a row does not have a column."""
    if value is None:
        return True
    if isinstance(value, float) and math.isnan(value):
        return True
    return type(value).__name__ in ("NAType", "NaTType")


def plain(value: Any, depth: int = 0) -> Any:
    """Turn NumPy scalars and arrays, Spark rows and tuples into plain Python.

    Raises:
        MlflowException: values within values deeper than ``MAX_DEPTH``.
    """
    if depth > MAX_DEPTH:
        raise invalid_request(
            "data", f"more than {MAX_DEPTH} values within values", f"at most {MAX_DEPTH}"
        )
    if hasattr(value, "tolist") and not isinstance(value, str | bytes):
        return plain(value.tolist(), depth)
    if hasattr(value, "asDict"):
        return plain(value.asDict(recursive=True), depth)
    inner = depth + 1
    # most values are already plain: a call for each of a million would take a second
    done = PLAIN_TYPES if inner <= MAX_DEPTH else frozenset()
    if isinstance(value, Mapping):
        return {
            str(key): item if type(item) in done else plain(item, inner)
            for key, item in value.items()
        }
    if isinstance(value, list | tuple):
        return [item if type(item) in done else plain(item, inner) for item in value]
    return value


def checked_text(field: str, value: str) -> str:
    """Refuse text that no tokenizer can read: NUL characters, which end it, and lone surrogates."""
    if "\x00" in value:
        raise invalid_request(field, value, "text without NUL characters")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise invalid_request(
            field,
            value,
            "valid Unicode text",
            f"it holds a lone surrogate at character {error.start}",
        ) from error
    return value


def checked_texts(field: str, value: Any, depth: int = 0) -> int:
    """Check every text in a value, keys too, as ``checked_text`` does; returns their characters,
    with a few for whatever else is there.

    Raises:
        MlflowException: a text that no tokenizer can read, an integer that cannot be written, a
            number that JSON does not have, values nested too deeply.
    """
    if depth > MAX_DEPTH:
        raise invalid_request(
            field, f"more than {MAX_DEPTH} values within values", f"at most {MAX_DEPTH}"
        )
    if isinstance(value, str):
        return len(checked_text(field, value))
    if isinstance(value, Mapping):
        return sum(
            checked_texts(field, str(key), depth) + checked_texts(field, item, depth + 1)
            for key, item in value.items()
        )
    if isinstance(value, list):
        return sum(checked_texts(field, item, depth + 1) for item in value)
    if isinstance(value, int) and value.bit_length() > 4096:
        raise invalid_request(field, value, "integers of at most 4096 bits")
    if isinstance(value, float) and not math.isfinite(value):
        raise invalid_request(field, value, "a JSON value, which has no such number")
    return 8
