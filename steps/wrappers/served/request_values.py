"""Single settings of a request, read from its row: numbers, switches and stop strings."""

import math
from collections.abc import Mapping
from typing import Any

from .invalid_request import invalid_request

MAX_STOPS = 16
# of one of them: the end of an answer is compared with every beginning of it, token after token
MAX_STOP_CHARACTERS = 512


def number_in(row: Mapping[str, Any], key: str, default: float, low: float, high: float) -> float:
    value = row.get(key)
    if value is None:
        return default
    # NaN is in no range
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        raise invalid_request(key, value, f"a number from {low:g} to {high:g}")
    return float(value)


def integer_in(
    row: Mapping[str, Any], key: str, default: int, low: int, high: int | None = None
) -> int:
    value = row.get(key)
    if value is None:
        return default
    bounds = f"an integer of at least {low}" if high is None else f"an integer from {low} to {high}"
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise invalid_request(key, value, bounds)
    # a frame with a gap holds its integers as floats
    if isinstance(value, float) and not (math.isfinite(value) and value.is_integer()):
        raise invalid_request(key, value, bounds)
    if value < low or (high is not None and value > high):
        raise invalid_request(key, value, bounds)
    return int(value)


def boolean_in(row: Mapping[str, Any], key: str) -> bool:
    value = row.get(key)
    if value is None:
        return False
    if not isinstance(value, bool):
        raise invalid_request(key, value, "true or false")
    return value


def stops_in(value: Any) -> tuple[str, ...]:
    if value is None:
        return ()
    stops = [value] if isinstance(value, str) else value
    if not isinstance(stops, list) or not all(isinstance(stop, str) and stop for stop in stops):
        raise invalid_request("stop", value, "a string or a list of strings, none empty")
    if len(stops) > MAX_STOPS:
        raise invalid_request("stop", value, f"at most {MAX_STOPS} strings")
    if any(len(stop) > MAX_STOP_CHARACTERS for stop in stops):
        raise invalid_request(
            "stop",
            f"{max(map(len, stops))} characters",
            f"strings of at most {MAX_STOP_CHARACTERS} characters",
        )
    return tuple(stops)
