"""Bounds of JSON schemas, counted before anything compiles them.

Each bound stands at a fraction of what the engine (llguidance, in onnxruntime-genai) compiles
within its own limits; ADR 19 has them.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any
from urllib.parse import unquote

from .invalid_request import invalid_request
from .regex_bounds import LARGEST, checked_regex

GUIDANCE = "x-guidance"  # the engine's own options, which a schema may hold beside its keywords

MAX_SCHEMA_CHARACTERS = 262_144
MAX_SCHEMA_LEVELS = 48  # schemas within schemas, references followed
MAX_SCHEMAS = 10_000  # schemas with references written out
MAX_ITEMS = 4_096  # of one array
MAX_ALL_ITEMS = 16_384  # of all arrays, references written out
MAX_LENGTH = 1_000_000  # characters of a string
MAX_PROPERTIES = 1_024  # of one object
MAX_OPTIONAL = 256  # of them that may be left out
MAX_ENUM = 4_096
MAX_CONSTANT = 16_384  # characters of one constant, written as JSON
MAX_ALL_CONSTANTS = 65_536  # of all of them
MAX_BRANCHES = 128  # of one anyOf or oneOf
MAX_JOINED = 16  # of one allOf
MAX_ALTERNATIVES = 256  # that remain when alternatives which must hold together are multiplied out
MAX_PATTERNS = 32
MAX_JOINED_PATTERNS = 4  # within one allOf: a string must match them all at once
# digits of a multipleOf without its exponent, read as an integer: a state of the automaton each
MAX_MULTIPLE = 10_000

BOUNDS = {
    **dict.fromkeys(("maxItems", "minItems", "maxContains", "minContains"), MAX_ITEMS),
    **dict.fromkeys(("maxLength", "minLength"), MAX_LENGTH),
    **dict.fromkeys(("maxProperties", "minProperties"), MAX_PROPERTIES),
}
ONE = frozenset(
    {
        "items",
        "additionalItems",
        "additionalProperties",
        "contains",
        "propertyNames",
        "unevaluatedItems",
        "unevaluatedProperties",
    }
    | {"not", "if", "then", "else", "contentSchema"}
)
LISTS = {
    "anyOf": MAX_BRANCHES,
    "oneOf": MAX_BRANCHES,
    "allOf": MAX_JOINED,
    "prefixItems": MAX_ITEMS,
    "items": MAX_ITEMS,
}
MAPS = ("properties", "patternProperties", "dependentSchemas", "dependencies")
DEFINITIONS = ("$defs", "definitions")

# A schema of these, this small, with anyOf and $ref beside nothing but notes,
# compiles in some hundredths of a second (tests/wrappers/test_grammar_trial.py)
NOTES = frozenset(
    {
        "title",
        "description",
        "default",
        "examples",
        "$schema",
        "deprecated",
        "readOnly",
        "writeOnly",
        *DEFINITIONS,
    }
)
RANGE = frozenset({"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"})
PLAIN = (
    NOTES
    | RANGE
    | {
        "type",
        "properties",
        "required",
        "additionalProperties",
        "items",
        "enum",
        "const",
        "minItems",
        "maxItems",
    }
)
PLAIN |= {"minLength", "maxLength"}
PLAIN_SCHEMAS, PLAIN_ITEMS, PLAIN_OPTIONAL, PLAIN_RANGES = 1_000, 2_048, 200, 100
PLAIN_CONSTANTS, PLAIN_LENGTH = 16_384, 10_000
# characters of all strings together, where a schema says how many, and of all properties' names
PLAIN_ALL_LENGTHS, PLAIN_NAMES = 65_536, 16_384


@dataclass
class Size:
    """What a schema amounts to with references written out; ``patterns`` and ``multiple`` are those
    that must hold for one value.
    """

    schemas: int = 1
    items: int = 0
    optional: int = 0
    alternatives: int = 1
    patterns: int = 0
    multiple: int = 1

    def hold(self, other: "Size") -> None:
        """Add a schema that stands within this one."""
        self.schemas = min(self.schemas + other.schemas, LARGEST)
        self.items = min(self.items + other.items, LARGEST)
        self.optional = min(self.optional + other.optional, LARGEST)

    def join(self, other: "Size") -> None:
        """Add a schema that must hold for the same value."""
        self.hold(other)
        self.alternatives = min(self.alternatives * other.alternatives, LARGEST)
        self.patterns = min(self.patterns + other.patterns, LARGEST)
        self.multiple = min(self.multiple * other.multiple, LARGEST)


@dataclass
class _Walk:
    """One look at a schema."""

    root: Mapping[str, Any]
    path: str
    # of what references point at, by its identity
    sizes: dict[int, Size] = field(default_factory=dict)
    open: set[int] = field(default_factory=set)  # what is being followed
    visits: int = 0
    patterns: int = 0
    constants: int = 0
    ranges: int = 0
    lengths: float = 0
    names: int = 0
    plain: bool = True

    def size(self, path: str, schema: Any, level: int) -> Size:
        """Check a schema and everything in it; returns what it amounts to."""
        size = Size()
        if not isinstance(schema, Mapping):
            return size
        self.visits += 1
        if self.visits > 2 * MAX_SCHEMAS:
            raise invalid_request(
                self.path, f"more than {MAX_SCHEMAS} schemas", f"at most {MAX_SCHEMAS}"
            )
        if level > MAX_SCHEMA_LEVELS:
            raise invalid_request(
                path, f"{level} schemas within schemas", f"at most {MAX_SCHEMA_LEVELS}"
            )
        if GUIDANCE in schema:
            raise invalid_request(
                f"{path}.{GUIDANCE}", schema[GUIDANCE], "no such key, as it is the server's to set"
            )
        alone = len(schema.keys() - NOTES) == 1 and ("anyOf" in schema or "$ref" in schema)
        self.plain = self.plain and (alone or PLAIN.issuperset(schema))
        self.ranges += not RANGE.isdisjoint(schema)
        size.schemas = max(1, len(schema["type"])) if isinstance(schema.get("type"), list) else 1
        self._numbers(path, schema, size)
        self._constants(path, schema)
        self._properties(path, schema, size)
        self._texts(path, schema, size)
        for key in sorted(ONE & schema.keys()):
            if not isinstance(schema.get(key), list):
                size.hold(self.size(f"{path}.{key}", schema.get(key), level + 1))
        for key in MAPS:
            for name, inner in self._entries(path, schema, key):
                size.hold(self.size(f"{path}.{key}.{name}", inner, level + 1))
        for key in DEFINITIONS:
            for name, inner in self._entries(path, schema, key):
                self.size(f"{path}.{key}.{name}", inner, level + 1)
        for key, most in LISTS.items():
            if isinstance(schema.get(key), list):
                self._list(path, key, schema[key], most, size, level)
        if isinstance(schema.get("$ref"), str):
            size.join(self._referred(path, schema["$ref"], level))
        self._joined(path, size)
        return size

    def _numbers(self, path: str, schema: Mapping[str, Any], size: Size) -> None:
        for key, most in BOUNDS.items():
            given = _number_in(schema, key)
            if given > most:
                raise invalid_request(f"{path}.{key}", schema[key], f"at most {most}")
        size.items = int(max(_number_in(schema, "maxItems"), _number_in(schema, "minItems")))
        length = max(_number_in(schema, "maxLength"), _number_in(schema, "minLength"))
        self.lengths += length
        self.plain = self.plain and length <= PLAIN_LENGTH
        value = schema.get("multipleOf")
        if isinstance(value, int | float) and not isinstance(value, bool) and value > 0:
            digits = Decimal(str(value)).normalize().as_tuple().digits
            whole: float = max(value, int("".join(map(str, digits))))
            if whole > MAX_MULTIPLE:
                raise invalid_request(
                    f"{path}.multipleOf",
                    value,
                    f"at most {MAX_MULTIPLE}, and no more digits than that",
                )
            size.multiple = int(whole)

    def _constants(self, path: str, schema: Mapping[str, Any]) -> None:
        values = schema.get("enum")
        if isinstance(values, list) and len(values) > MAX_ENUM:
            raise invalid_request(f"{path}.enum", f"{len(values)} values", f"at most {MAX_ENUM}")
        given = (
            {f"enum[{index}]": value for index, value in enumerate(values)}
            if isinstance(values, list)
            else {}
        )
        for key, value in {
            **given,
            **({"const": schema["const"]} if "const" in schema else {}),
        }.items():
            characters = len(json.dumps(value))
            if characters > MAX_CONSTANT:
                raise invalid_request(
                    f"{path}.{key}", f"{characters} characters", f"at most {MAX_CONSTANT}"
                )
            self.constants += characters
        if self.constants > MAX_ALL_CONSTANTS:
            raise invalid_request(
                self.path,
                f"{self.constants} characters of enum and const",
                f"at most {MAX_ALL_CONSTANTS}",
            )

    def _properties(self, path: str, schema: Mapping[str, Any], size: Size) -> None:
        required = schema.get("required")
        if isinstance(required, list) and len(required) > MAX_PROPERTIES:
            raise invalid_request(
                f"{path}.required", f"{len(required)} names", f"at most {MAX_PROPERTIES}"
            )
        names = {str(name) for name in required} if isinstance(required, list) else set()
        properties = schema.get("properties")
        # each costs as much as a property
        if names.difference(properties if isinstance(properties, Mapping) else ()):
            self.plain = False
        if not isinstance(properties, Mapping):
            return
        if len(properties) > MAX_PROPERTIES:
            raise invalid_request(
                f"{path}.properties", f"{len(properties)} properties", f"at most {MAX_PROPERTIES}"
            )
        self.names += sum(map(len, properties))
        size.optional = sum(name not in names for name in properties)
        if size.optional > MAX_OPTIONAL:
            expected = f"at most {MAX_OPTIONAL} that are not required"
            raise invalid_request(
                f"{path}.properties",
                f"{size.optional} optional properties",
                expected,
                "name the others in `required`",
            )

    def _texts(self, path: str, schema: Mapping[str, Any], size: Size) -> None:
        if isinstance(schema.get("pattern"), str):
            self._pattern(f"{path}.pattern", schema["pattern"])
            size.patterns += 1
        for name, _ in self._entries(path, schema, "patternProperties"):
            self._pattern(f"{path}.patternProperties", name)

    def _pattern(self, path: str, pattern: str) -> None:
        checked_regex(path, pattern)
        self.patterns += 1
        if self.patterns > MAX_PATTERNS:
            raise invalid_request(
                path, f"pattern {self.patterns} of the schema", f"at most {MAX_PATTERNS} patterns"
            )

    def _entries(self, path: str, schema: Mapping[str, Any], key: str) -> Iterator[tuple[str, Any]]:
        entries = schema.get(key)
        if isinstance(entries, Mapping):
            if len(entries) > MAX_PROPERTIES:
                raise invalid_request(
                    f"{path}.{key}", f"{len(entries)} entries", f"at most {MAX_PROPERTIES}"
                )
            yield from entries.items()

    def _list(
        self, path: str, key: str, schemas: list[Any], most: int, size: Size, level: int
    ) -> None:
        if len(schemas) > most:
            raise invalid_request(f"{path}.{key}", f"{len(schemas)} schemas", f"at most {most}")
        inner = [
            self.size(f"{path}.{key}[{index}]", schema, level + 1)
            for index, schema in enumerate(schemas)
        ]
        if key == "allOf":
            for one in inner:
                size.join(one)
            return
        for one in inner:
            size.hold(one)
        if key in ("anyOf", "oneOf"):
            size.alternatives = min(
                size.alternatives * max(1, sum(one.alternatives for one in inner)), LARGEST
            )
            size.patterns += max((one.patterns for one in inner), default=0)
            size.multiple *= max((one.multiple for one in inner), default=1)

    def _referred(self, path: str, reference: str, level: int) -> Size:
        """What a reference points at, measured once; a schema within itself, or one elsewhere, is
        no more than its name.
        """
        found = _at(self.root, reference)
        if found is None or id(found) in self.open:
            self.plain = False
            return Size()
        if id(found) not in self.sizes:
            self.open.add(id(found))
            self.sizes[id(found)] = self.size(f"{path}.$ref", found, level + 1)
            self.open.discard(id(found))
        return self.sizes[id(found)]

    def _joined(self, path: str, size: Size) -> None:
        for found, most, what in (
            (size.schemas, MAX_SCHEMAS, "schemas with references written out"),
            (size.items, MAX_ALL_ITEMS, "items of all arrays together"),
            (
                size.alternatives,
                MAX_ALTERNATIVES,
                "alternatives when those that must hold together are multiplied out",
            ),
            (size.patterns, MAX_JOINED_PATTERNS, "patterns that one string must match"),
            (
                size.multiple,
                MAX_MULTIPLE,
                "as the product of the multipleOf that one number must meet",
            ),
        ):
            if found > most:
                raise invalid_request(
                    path,
                    f"{found if found < LARGEST else f'more than {LARGEST}'} {what}",
                    f"at most {most}",
                )


def bounded_schema(path: str, schema: Mapping[str, Any]) -> bool:
    """Refuse a schema that is too large to compile while others wait.

    Args:
        path: of the schema in the request.
        schema: whose texts and depth are checked.

    Returns:
        Whether it is so plain and small that it need not be tried first.

    Raises:
        MlflowException: naming the field, the value and the bound.
    """
    characters = len(json.dumps(schema))
    if characters > MAX_SCHEMA_CHARACTERS:
        raise invalid_request(path, f"{characters} characters", f"at most {MAX_SCHEMA_CHARACTERS}")
    walk = _Walk(schema, path)
    size = walk.size(path, schema, 0)
    small = (
        size.schemas <= PLAIN_SCHEMAS
        and size.items <= PLAIN_ITEMS
        and size.optional <= PLAIN_OPTIONAL
        and walk.lengths <= PLAIN_ALL_LENGTHS
        and walk.names <= PLAIN_NAMES
    )
    return (
        walk.plain and small and walk.constants <= PLAIN_CONSTANTS and walk.ranges <= PLAIN_RANGES
    )


def _number_in(schema: Mapping[str, Any], key: str) -> float:
    value = schema.get(key)
    return value if isinstance(value, int | float) and not isinstance(value, bool) else 0


def _at(root: Any, reference: str) -> Any:
    """What a local reference, ``#`` or ``#/a/b``, points at; None where there is nothing."""
    if reference != "#" and not reference.startswith("#/"):
        return None
    found = root
    for part in reference.split("/")[1:]:
        name = unquote(part).replace("~1", "/").replace("~0", "~")
        if isinstance(found, Mapping) and name in found:
            found = found[name]
        elif (
            isinstance(found, list)
            and name.isdecimal()
            and len(name) < 6
            and int(name) < len(found)
        ):
            found = found[int(name)]
        else:
            return None
    return found
