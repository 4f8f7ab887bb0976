"""Grammars as requests hold them: what people send, and what is made to stop a server."""

import json
from typing import Any

INTEGER = {"type": "integer"}
GUIDANCE = "x-guidance"


def schema(value: Any) -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": {"name": "x", "schema": value}}


def regex(value: str) -> dict[str, Any]:
    return {"type": "regex", "regex": value}


def lark(value: str) -> dict[str, Any]:
    return {"type": "lark", "lark": value}


def named(count: int, of: Any = INTEGER) -> dict[str, Any]:
    return {f"p{number}": of for number in range(count)}


ADDRESS = {
    "Address": {
        "type": "object",
        "properties": {"street": {"type": "string"}},
        "required": ["street"],
    }
}
PERSON = {
    "title": "Person",
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 2_000, "title": "Name"},
        "age": {
            "anyOf": [{"type": "integer", "minimum": 0, "maximum": 150}, {"type": "null"}],
            "default": None,
        },
        "address": {"$ref": "#/$defs/Address"},
        "tags": {"type": "array", "items": {"type": "string"}, "maxItems": 100},
        **named(26, {"type": "string"}),
    },
    "required": ["name", "address"],
    "$defs": ADDRESS,
    "additionalProperties": False,
}
TREE = {
    "$ref": "#/$defs/T",
    "$defs": {
        "T": {
            "type": "object",
            "properties": {"next": {"anyOf": [{"$ref": "#/$defs/T"}, {"type": "null"}]}},
        }
    },
}

SIBLINGS = {  # each alternative is merged with all that stands beside them
    "type": "object",
    "properties": named(100, {"type": "string", "maxLength": 50}),
    "anyOf": [
        {"properties": {key: {"type": "string", "minLength": 3}}, "required": [key]}
        for key in named(100)
    ],
}

# a name of `required` alone costs as much as a property
NEVER_DEFINED = {"type": "object", "required": list(named(1_024))}
NESTED = {**NEVER_DEFINED, "additionalProperties": NEVER_DEFINED}

# takes seconds to compile; a comment makes another of it
SLOW = ("lark_grammar", 'start: %json {"multipleOf": 1000003}')

HIDDEN = [
    ("json_schema", json.dumps(NESTED)),
    ("json_schema", json.dumps(SIBLINGS)),
    ("regex", "(a?){500}a{500}"),  # compiles, and fails at its first token
    ("lark_grammar", 'start: a{1000}\na: b{1000}\nb: "x"'),
    SLOW,
    ("json_schema", json.dumps({"multipleOf": 1_000_003, GUIDANCE: {}})),
    ("json_schema", json.dumps({"type": 5, GUIDANCE: {"whitespace_flexible": False}})),
    ("json_schema", json.dumps({"enum": [], GUIDANCE: {"whitespace_flexible": False}})),
    (
        "json_schema",
        json.dumps({"$ref": "https://example.org/x", GUIDANCE: {"whitespace_flexible": False}}),
    ),
]
