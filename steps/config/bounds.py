"""Bounds of config fields: stated where a field is defined, checked when a config is composed."""

import typing
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from types import NoneType
from typing import Any

from steps.core.errors import ConfigError

KEY = "bound"  # in a field's metadata; of a list each item keeps to it


@dataclass(frozen=True)
class Bound:
    """Which values a field may hold; None is checked by its type alone."""

    holds: Callable[[Any], bool]
    expected: str  # for the error


def at_least(least: float, what: str = "an integer") -> Bound:
    return Bound(lambda value: value >= least, f"{what} of at least {least}")


def above(least: float, what: str) -> Bound:
    return Bound(lambda value: value > least, f"{what} above {least}")


def between(low: float, high: float, what: str) -> Bound:
    """Both ends included."""
    return Bound(lambda value: low <= value <= high, f"{what} from {low} to {high}")


def inside(low: float, high: float, what: str) -> Bound:
    """Neither end included."""
    return Bound(lambda value: low < value < high, f"{what} between {low} and {high}")


def bounded(default: Any, bound: Bound) -> Any:
    """A dataclass field with this default and this bound."""
    return field(default=default, metadata={KEY: bound})


def check(node: Any, prefix: str) -> None:
    """Check every bounded field of a config node.

    Args:
        node: a dataclass of the config.
        prefix: its dotted key.

    Raises:
        ConfigError: a field does not keep to its bound.
    """
    for config_field in fields(node):
        bound, value = config_field.metadata.get(KEY), getattr(node, config_field.name)
        if bound is None or value is None:
            continue
        if not all(map(bound.holds, value if isinstance(value, list) else [value])):
            optional = NoneType in typing.get_args(config_field.type)
            expected = f"{bound.expected}, or null" if optional else bound.expected
            raise ConfigError(f"{prefix}.{config_field.name}", value, expected)
