"""Which JSON schemas are so plain and small that they need not be tried before they are compiled.

A schema of these keywords, this small, with ``anyOf`` and ``$ref`` beside notes alone, compiles in
some hundredths of a second (tests/wrappers/test_grammar_trial.py).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .schema_size import DEFINITIONS, SchemaSize, number_of

NOTES = frozenset(
    {
        *("title", "description", "default", "examples", "$schema", "deprecated"),
        *("readOnly", "writeOnly", *DEFINITIONS),
    }
)
RANGE = frozenset({"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"})
PLAIN = (NOTES | RANGE).union(
    ("type", "properties", "required", "additionalProperties", "items", "enum", "const"),
    ("minItems", "maxItems", "minLength", "maxLength"),
)
PLAIN_SCHEMAS, PLAIN_ITEMS, PLAIN_OPTIONAL, PLAIN_RANGES = 1_000, 2_048, 200, 100
PLAIN_CONSTANTS, PLAIN_LENGTH = 16_384, 10_000
# characters of all strings together, where a schema says how many, and of all properties' names
PLAIN_ALL_LENGTHS, PLAIN_NAMES = 65_536, 16_384


@dataclass
class Plainness:
    """Counts what one schema and those within it hold."""

    plain: bool = True
    ranges: int = 0
    lengths: float = 0
    names: int = 0

    def see(self, schema: Mapping[str, Any]) -> None:
        """Count a schema, without those within it."""
        alone = len(schema.keys() - NOTES) == 1 and ("anyOf" in schema or "$ref" in schema)
        length = max(number_of(schema, "maxLength"), number_of(schema, "minLength"))
        properties = schema.get("properties")
        names = set(properties) if isinstance(properties, Mapping) else set()
        self.ranges += not RANGE.isdisjoint(schema)
        self.lengths += length
        self.names += sum(map(len, names))
        self.plain = (
            self.plain
            and (alone or PLAIN.issuperset(schema))
            and length <= PLAIN_LENGTH
            # a name that is required alone costs as much as a property
            and required_names(schema) <= names
        )

    def holds(self, size: SchemaSize, constants: int) -> bool:
        """Whether a schema of this size, with so many characters of constants, is plain."""
        return (
            self.plain
            and self.ranges <= PLAIN_RANGES
            and self.lengths <= PLAIN_ALL_LENGTHS
            and self.names <= PLAIN_NAMES
            and constants <= PLAIN_CONSTANTS
            and size.schemas <= PLAIN_SCHEMAS
            and size.items <= PLAIN_ITEMS
            and size.optional <= PLAIN_OPTIONAL
        )


def required_names(schema: Mapping[str, Any]) -> set[str]:
    """Names of properties that must not be left out."""
    required = schema.get("required")
    return set(map(str, required)) if isinstance(required, list) else set()
