"""How a request is refused, and what is done to values before they are looked at.

Part of the logged model, as every file of this folder: ``steps.wrappers.bundle`` joins them into one, so none imports from ``steps``.
"""

import math
from collections.abc import Mapping
from typing import Any

from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE

MAX_REQUEST_CHARACTERS = 4_000_000  # a longer text cannot fit any context and would only stall the tokenizer
MAX_DEPTH = 64  # of values within values; no schema or message needs more, and Python's own recursion ends at about a thousand


def refusal(field: str, value: object, expected: str, cure: str | None = None) -> MlflowException:
    """Build the error of a request that breaks the contract; a scoring server answers it with status 400."""
    try:
        shown = repr(value)
    except (ValueError, RecursionError):  # Python writes no integer of more than 4,300 digits
        shown = f"a {type(value).__name__} too large to show"
    message = f"{field}={shown if len(shown) <= 200 else shown[:200] + '…'}: expected {expected}"
    return MlflowException(f"{message}; {cure}" if cure else message, error_code=INVALID_PARAMETER_VALUE)


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
        raise refusal("data", f"more than {MAX_DEPTH} values within values", f"at most {MAX_DEPTH}")
    if hasattr(value, "tolist") and not isinstance(value, str | bytes):
        return plain(value.tolist(), depth)
    if hasattr(value, "asDict"):
        return plain(value.asDict(recursive=True), depth)
    if isinstance(value, Mapping):
        return {str(key): plain(item, depth + 1) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item, depth + 1) for item in value]
    return value


def checked_text(field: str, value: str) -> str:
    """Refuse text that no tokenizer can read: NUL characters, which end it, and lone surrogates."""
    if "\x00" in value:
        raise refusal(field, value, "text without NUL characters")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise refusal(field, value, "valid Unicode text", f"it holds a lone surrogate at character {error.start}") from error
    return value


def checked_texts(field: str, value: Any, depth: int = 0) -> int:
    """Check every text in a value, keys too, as ``checked_text`` does; returns their characters, with a few for whatever else is there.

    Raises:
        MlflowException: a text that no tokenizer can read, an integer that cannot be written, values nested too deeply.
    """
    if depth > MAX_DEPTH:
        raise refusal(field, f"more than {MAX_DEPTH} values within values", f"at most {MAX_DEPTH}")
    if isinstance(value, str):
        return len(checked_text(field, value))
    if isinstance(value, Mapping):
        return sum(checked_texts(field, str(key), depth) + checked_texts(field, item, depth + 1) for key, item in value.items())
    if isinstance(value, list):
        return sum(checked_texts(field, item, depth + 1) for item in value)
    if isinstance(value, int) and value.bit_length() > 4096:
        raise refusal(field, value, "integers of at most 4096 bits")
    return 8
