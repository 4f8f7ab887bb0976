"""The size of a JSON schema, counted with references written out."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .regex_bounds import LARGEST

DEFINITIONS = ("$defs", "definitions")


@dataclass
class SchemaSize:
    """What a schema amounts to with references written out; ``patterns`` and ``multiple`` are those
    that must hold for one value.
    """

    schemas: int = 1
    items: int = 0
    optional: int = 0
    alternatives: int = 1
    patterns: int = 0
    multiple: int = 1

    def hold(self, other: "SchemaSize") -> None:
        """Add a schema that stands within this one."""
        self.schemas = min(self.schemas + other.schemas, LARGEST)
        self.items = min(self.items + other.items, LARGEST)
        self.optional = min(self.optional + other.optional, LARGEST)

    def join(self, other: "SchemaSize") -> None:
        """Add a schema that must hold for the same value."""
        self.hold(other)
        self.alternatives = min(self.alternatives * other.alternatives, LARGEST)
        self.patterns = min(self.patterns + other.patterns, LARGEST)
        self.multiple = min(self.multiple * other.multiple, LARGEST)


def number_of(schema: Mapping[str, Any], key: str) -> float:
    """The number under a key; 0 where there is none."""
    value = schema.get(key)
    return value if isinstance(value, int | float) and not isinstance(value, bool) else 0
