"""Bounds of JSON schemas, counted before anything compiles them.

Each bound stands at a fraction of what the engine (llguidance, in onnxruntime-genai) compiles
within its own limits; ADR 19 has them.
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any
from urllib.parse import unquote

from .invalid_request import invalid_request, require_count
from .regex_bounds import LARGEST, checked_regex
from .schema_plain import Plainness, required_names
from .schema_size import DEFINITIONS, SchemaSize, number_of

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
ONE = (
    *("additionalItems", "additionalProperties", "contains", "contentSchema", "else", "if"),
    *("items", "not", "propertyNames", "then", "unevaluatedItems", "unevaluatedProperties"),
)
LISTS = {
    "anyOf": MAX_BRANCHES,
    "oneOf": MAX_BRANCHES,
    "allOf": MAX_JOINED,
    "prefixItems": MAX_ITEMS,
    "items": MAX_ITEMS,
}
MAPS = ("properties", "patternProperties", "dependentSchemas", "dependencies")


@dataclass
class _Walk:
    """One look at a schema."""

    root: Mapping[str, Any]
    path: str
    # of what references point at, by its identity
    sizes: dict[int, SchemaSize] = field(default_factory=dict)
    open: set[int] = field(default_factory=set)  # what is being followed
    visits: int = 0
    patterns: int = 0
    constants: int = 0
    plainness: Plainness = field(default_factory=Plainness)

    def size(self, path: str, schema: Any, level: int) -> SchemaSize:
        """Check a schema and everything in it; returns what it amounts to."""
        size = SchemaSize()
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
        size.schemas = max(1, len(schema["type"])) if isinstance(schema.get("type"), list) else 1
        self._numbers(path, schema, size)
        self._constants(path, schema)
        self._properties(path, schema, size)
        self._patterns(path, schema, size)
        self.plainness.see(schema)
        for key in ONE:
            if key in schema and not isinstance(schema[key], list):
                size.hold(self.size(f"{path}.{key}", schema[key], level + 1))
        for key in (*MAPS, *DEFINITIONS):
            for name, inner in self._entries(path, schema, key):
                held = self.size(f"{path}.{key}.{name}", inner, level + 1)
                if key in MAPS:  # a definition counts where it is referred to
                    size.hold(held)
        for key, most in LISTS.items():
            if isinstance(schema.get(key), list):
                self._list(path, key, schema[key], most, size, level)
        if isinstance(schema.get("$ref"), str):
            size.join(self._referred(path, schema["$ref"], level))
        self._joined(path, size)
        return size

    def _numbers(self, path: str, schema: Mapping[str, Any], size: SchemaSize) -> None:
        for key, most in BOUNDS.items():
            given = number_of(schema, key)
            if given > most:
                raise invalid_request(f"{path}.{key}", schema[key], f"at most {most}")
        size.items = int(max(number_of(schema, "maxItems"), number_of(schema, "minItems")))
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
        constants = {"const": schema["const"]} if "const" in schema else {}
        if isinstance(values, list):
            require_count(f"{path}.enum", values, MAX_ENUM, "values")
            constants = {f"enum[{index}]": value for index, value in enumerate(values)} | constants
        for key, value in constants.items():
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

    def _properties(self, path: str, schema: Mapping[str, Any], size: SchemaSize) -> None:
        required = schema.get("required")
        if isinstance(required, list):
            require_count(f"{path}.required", required, MAX_PROPERTIES, "names")
        properties = schema.get("properties")
        if not isinstance(properties, Mapping):
            return
        require_count(f"{path}.properties", properties, MAX_PROPERTIES, "properties")
        size.optional = len(properties.keys() - required_names(schema))
        if size.optional > MAX_OPTIONAL:
            expected = f"at most {MAX_OPTIONAL} that are not required"
            raise invalid_request(
                f"{path}.properties",
                f"{size.optional} optional properties",
                expected,
                "name the others in `required`",
            )

    def _patterns(self, path: str, schema: Mapping[str, Any], size: SchemaSize) -> None:
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
            require_count(f"{path}.{key}", entries, MAX_PROPERTIES, "entries")
            yield from entries.items()

    def _list(
        self, path: str, key: str, schemas: list[Any], most: int, size: SchemaSize, level: int
    ) -> None:
        require_count(f"{path}.{key}", schemas, most, "schemas")
        inner = [
            self.size(f"{path}.{key}[{index}]", schema, level + 1)
            for index, schema in enumerate(schemas)
        ]
        for one in inner:
            if key == "allOf":
                size.join(one)
            else:
                size.hold(one)
        if key in ("anyOf", "oneOf"):
            size.alternatives = min(
                size.alternatives * max(1, sum(one.alternatives for one in inner)), LARGEST
            )
            size.patterns += max((one.patterns for one in inner), default=0)
            size.multiple *= max((one.multiple for one in inner), default=1)

    def _referred(self, path: str, reference: str, level: int) -> SchemaSize:
        """What a reference points at, measured once; a schema within itself, or one elsewhere,
        counts as its name alone.
        """
        target = _at(self.root, reference)
        key = id(target)
        if target is None or key in self.open:
            self.plainness.plain = False
            return SchemaSize()
        if key not in self.sizes:
            self.open.add(key)
            self.sizes[key] = self.size(f"{path}.$ref", target, level + 1)
            self.open.discard(key)
        return self.sizes[key]

    def _joined(self, path: str, size: SchemaSize) -> None:
        multiplied = "alternatives when those that must hold together are multiplied out"
        product = "as the product of the multipleOf that one number must meet"
        for count, most, what in (
            (size.schemas, MAX_SCHEMAS, "schemas with references written out"),
            (size.items, MAX_ALL_ITEMS, "items of all arrays together"),
            (size.alternatives, MAX_ALTERNATIVES, multiplied),
            (size.patterns, MAX_JOINED_PATTERNS, "patterns that one string must match"),
            (size.multiple, MAX_MULTIPLE, product),
        ):
            if count > most:
                shown = count if count < LARGEST else f"more than {LARGEST}"
                raise invalid_request(path, f"{shown} {what}", f"at most {most}")


def _walked(path: str, schema: Mapping[str, Any]) -> tuple[_Walk, SchemaSize]:
    characters = len(json.dumps(schema))
    if characters > MAX_SCHEMA_CHARACTERS:
        raise invalid_request(path, f"{characters} characters", f"at most {MAX_SCHEMA_CHARACTERS}")
    walk = _Walk(schema, path)
    return walk, walk.size(path, schema, 0)


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
    walk, size = _walked(path, schema)
    return walk.plainness.holds(size, walk.constants)


def measured_schema(path: str, schema: Mapping[str, Any]) -> tuple[SchemaSize, int, int]:
    """Refuse as ``bounded_schema`` does; returns the size, the patterns in it and the characters of
    its constants.
    """
    walk, size = _walked(path, schema)
    return size, walk.patterns, walk.constants


def _at(root: Any, reference: str) -> Any:
    """What a local reference, ``#`` or ``#/a/b``, points at; None where there is nothing."""
    if reference != "#" and not reference.startswith("#/"):
        return None
    target = root
    for part in reference.split("/")[1:]:
        name = unquote(part).replace("~1", "/").replace("~0", "~")
        if isinstance(target, Mapping) and name in target:
            target = target[name]
        elif (
            isinstance(target, list) and re.fullmatch(r"\d{1,5}", name) and int(name) < len(target)
        ):
            target = target[int(name)]
        else:
            return None
    return target
