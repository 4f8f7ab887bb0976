"""Grammars of ``response_format``: JSON schemas, regular expressions and Lark, bounded."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mlflow.exceptions import MlflowException

from .invalid_request import checked_text, checked_texts, invalid_request
from .lark_bounds import checked_lark
from .regex_bounds import checked_regex
from .schema_bounds import GUIDANCE, bounded_schema

GRAMMARS = ("regex", "lark")
FIELD = "response_format"


@dataclass(frozen=True)
class Grammar:
    """What an answer must match.

    Args:
        kind: ``json_schema``, ``regex`` or ``lark_grammar``, as the engine names them.
        text: as the engine reads it.
        cheap: whether its bounds alone say that it compiles at once; others are tried first.
        field: of the request that it comes from.
    """

    kind: str
    text: str
    cheap: bool = False
    field: str = FIELD


def _json_grammar(schema: Mapping[str, Any], *, cheap: bool) -> Grammar:
    """Hold an answer to a schema, in the compact way of writing JSON: free white space lets a small
    model write nothing else.
    """
    return Grammar(
        "json_schema", json.dumps({**schema, GUIDANCE: {"whitespace_flexible": False}}), cheap
    )


def checked_grammar(value: Any) -> Grammar | None:
    """Read ``response_format``: text, json_object, json_schema, regex or lark.

    Raises:
        MlflowException: an unknown type, a schema that is not a JSON schema, or a grammar that is
            too large.
    """
    if value is None:
        return None
    if not isinstance(value, Mapping) or not isinstance(value.get("type"), str):
        raise invalid_request(
            FIELD, value, "{'type': 'text' | 'json_object' | 'json_schema' | 'regex' | 'lark', …}"
        )
    kind = value["type"]
    if kind == "text":
        return None
    if kind not in ("json_object", "json_schema", *GRAMMARS):
        raise invalid_request(
            f"{FIELD}.type", kind, "one of text, json_object, json_schema, regex, lark"
        )
    if kind == "json_object":
        return _json_grammar({"type": "object"}, cheap=True)
    if kind == "json_schema":
        holder = value.get("json_schema")
        schema = holder.get("schema") if isinstance(holder, Mapping) else None
        if not isinstance(schema, Mapping):
            raise invalid_request(f"{FIELD}.json_schema", holder, "{'name': …, 'schema': {…}}")
        field = f"{FIELD}.json_schema.schema"
        checked_texts(field, schema)
        return _json_grammar(schema, cheap=bounded_schema(field, schema))
    text = value.get(kind) or value.get("pattern") or value.get("grammar")
    if not isinstance(text, str) or not text:
        raise invalid_request(f"{FIELD}.{kind}", text, f"the {kind} as a string")
    checked_text(f"{FIELD}.{kind}", text)
    if kind == "regex":
        checked_regex(f"{FIELD}.regex", text)
        return Grammar("regex", text)
    checked_lark(f"{FIELD}.lark", text)
    return Grammar("lark_grammar", text)


ENGINE_NOISE = re.compile(r"\s*(?:<state>|<backtrace>|\n).*", re.DOTALL)
GRAMMAR_ERROR = re.compile(
    r"grammar|guidance|lexer|parser error|committing tokens|comput\w+ mask|\bmask\b", re.IGNORECASE
)


def uncompilable(grammar: Grammar, problem: str) -> MlflowException:
    """Build the error of a grammar that the engine refuses, less the engine's inner state.

    The value shown is the kind alone: the text holds a key of ours.
    """
    reason = ENGINE_NOISE.sub("", problem.strip())
    reason = reason if GUIDANCE not in reason else reason.partition(":")[0]
    if grammar.field != FIELD:
        return invalid_request(
            grammar.field, "parameters", f"JSON schemas that can be compiled ({reason[:300]})"
        )
    kind = {"lark_grammar": "lark"}.get(grammar.kind, grammar.kind)
    return invalid_request(
        f"{FIELD}.type", kind, f"a grammar that can be compiled ({reason[:300]})"
    )


def fault_of_grammar(error: Exception) -> bool:
    """Whether an engine's error, of an answer that is held to a grammar, is about the grammar."""
    return GRAMMAR_ERROR.search(str(error)) is not None
