"""Tool calls as language models write them, less the marks around: JSON, tags, names or Python.

A reader is given a text and where a call begins, and returns the calls with where they end, or None
where they are malformed.
"""

import ast
import json
import re
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, NoReturn

# characters of a call that is written as Python; no call is longer, and parsing takes memory
MAX_PYTHON = 65_536


class WrittenCall(NamedTuple):
    """A call as it was written: ``arguments`` are a mapping or JSON text; ``textual`` says that
    every value in them came as bare text.
    """

    name: str
    arguments: Any
    textual: bool = False


Read = tuple[list[WrittenCall], int] | None
Reader = Callable[[str, int], Read]

SPACE = re.compile(r"\s*")
NAME = re.compile(r"\s*([A-Za-z_][\w.-]*)\s*")
FUNCTION = re.compile(r"<function=([^>\n]+)>\s*")
PARAMETER_TAG = re.compile(r"\s*<parameter=([^>\n]+)>\n?(.*?)\n?</parameter>", re.DOTALL)
ARGUMENT_PAIR = re.compile(r"\s*<arg_key>(.*?)</arg_key>\s*<arg_value>(.*?)</arg_value>", re.DOTALL)
CALL_IDENTITY = re.compile(r"\[CALL_ID\][^\[\s]*")
PYTHON = re.compile(r"\[?\s*[A-Za-z_][\w.]*\s*\(")
FENCE = re.compile(r"```(json|tool_calls?|tool_code|python)?[ \t]*\n")


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


DECODER = json.JSONDecoder(parse_constant=_refuse_constant)


def after_space(text: str, position: int) -> int:
    """Where the next text that is not white space begins."""
    return SPACE.match(text, position).end()  # type: ignore[union-attr]  # it matches anything


def json_values(text: str, position: int) -> tuple[list[Any], int] | None:
    """JSON values with white space, commas or semicolons between them; lists are flattened."""
    values: list[Any] = []
    end = position
    while text[position : position + 1] in ("{", "["):
        try:
            value, end = DECODER.raw_decode(text, position)
        except (ValueError, RecursionError):
            return None
        values += value if isinstance(value, list) else [value]
        position = after_space(text, end)
        if text[position : position + 1] in (";", ","):
            position = after_space(text, position + 1)
    return (values, end) if values else None


def call_of(value: Any, *, explicit: bool) -> WrittenCall | None:
    """Read a JSON value as a call.

    Args:
        value: ``{"name": …, "arguments": {…}}``, with ``parameters`` for arguments, or ``function``
            around both or for the name.
        explicit: the text says that this is a call, which then may have no arguments.
    """
    if isinstance(value, dict) and isinstance(value.get("function"), dict):
        value = value["function"]
    if not isinstance(value, dict):
        return None
    name = value.get("name", value.get("function"))
    arguments = value.get("arguments", value.get("parameters", {} if explicit else None))
    return WrittenCall(name, arguments) if isinstance(name, str) and arguments is not None else None


def as_json(text: str, position: int, *, explicit: bool = True) -> Read:
    """JSON values that are calls, all of them."""
    values = json_values(text, position)
    calls = [call_of(value, explicit=explicit) for value in values[0]] if values else []
    whole = [call for call in calls if call is not None]
    return (whole, values[1]) if values and whole and len(whole) == len(calls) else None


def as_function_tags(text: str, position: int) -> Read:
    """``<function=name>`` with JSON, or with ``<parameter=key>value</parameter>`` each."""
    opened = FUNCTION.match(text, position)
    if opened is None:
        return None
    position, name = opened.end(), opened.group(1).strip()
    arguments: Any = {}
    if text[position : position + 1] == "{":
        try:
            arguments, position = DECODER.raw_decode(text, position)
        except (ValueError, RecursionError):
            return None
        call = WrittenCall(name, arguments)
    else:
        while pair := PARAMETER_TAG.match(text, position):
            arguments[pair.group(1).strip()] = pair.group(2)
            position = pair.end()
        call = WrittenCall(name, arguments, textual=True)
    position = after_space(text, position)
    return (
        ([call], position + len("</function>"))
        if text.startswith("</function>", position)
        else None
    )


def as_argument_pairs(text: str, position: int) -> Read:
    """A name, then ``<arg_key>…</arg_key><arg_value>…</arg_value>`` each."""
    named = NAME.match(text, position)
    if named is None or not (
        text.startswith("<arg_key>", named.end()) or text.startswith("</tool_call>", named.end())
    ):
        return None
    arguments, position = {}, named.end()
    while pair := ARGUMENT_PAIR.match(text, position):
        arguments[pair.group(1).strip()] = pair.group(2)
        position = pair.end()
    return [WrittenCall(named.group(1), arguments, textual=True)], position


def as_named_arguments(text: str, position: int) -> Read:
    """``name[ARGS]{…}``, with ``[CALL_ID]…`` between, or with neither; several in a row."""
    calls: list[WrittenCall] = []
    while named := NAME.match(text, position):
        start = named.end()
        identity = CALL_IDENTITY.match(text, start)
        start = identity.end() if identity else start
        start = after_space(
            text, start + len("[ARGS]") if text.startswith("[ARGS]", start) else start
        )
        if text[start : start + 1] != "{":
            break
        try:
            arguments, position = DECODER.raw_decode(text, start)
        except (ValueError, RecursionError):
            break
        calls.append(WrittenCall(named.group(1), arguments))
    return (calls, position) if calls else None


def as_fence(text: str, position: int, *, explicit: bool = True) -> Read:
    """A block between three backticks."""
    fence = FENCE.match(text, position)
    if fence is None:
        return None
    start = after_space(text, fence.end())
    body = as_json(text, start, explicit=explicit)
    if body is None and (explicit or fence.group(1) == "tool_code"):
        close = text.find("```", start)
        body = as_python(text[start:close], close) if close >= 0 else None
    if body is None:
        return None
    end = after_space(text, body[1])
    return (body[0], end + 3) if text.startswith("```", end) else None


def _constant(node: ast.expr) -> Any:
    """A value that is written out; JSON's own names for constants are read, too."""
    for part in ast.walk(node):
        for field, value in ast.iter_fields(part):
            replaced = value if isinstance(value, list) else [value]
            for number, item in enumerate(replaced):
                if isinstance(item, ast.Name) and item.id in ("true", "false", "null"):
                    replaced[number] = ast.Constant(
                        {"true": True, "false": False, "null": None}[item.id]
                    )
            if not isinstance(value, list):
                setattr(part, field, replaced[0])
    return ast.literal_eval(node)


def _python_calls(body: str) -> Iterator[WrittenCall]:
    for statement in ast.parse(body.strip()).body:
        expression = statement.value if isinstance(statement, ast.Expr) else None
        for call in (
            expression.elts if isinstance(expression, ast.List | ast.Tuple) else [expression]
        ):
            if (
                not isinstance(call, ast.Call)
                or call.args
                or any(keyword.arg is None for keyword in call.keywords)
            ):
                raise ValueError("not a call by keywords")
            holder = ast.List([keyword.value for keyword in call.keywords], ast.Load())
            values = _constant(holder)
            json.dumps(values, allow_nan=False)
            yield WrittenCall(
                ast.unparse(call.func),
                dict(zip([str(keyword.arg) for keyword in call.keywords], values, strict=True)),
            )


def as_python(body: str, end: int) -> Read:
    """``[f(a=1), g(b="x")]``, or calls line by line: only literal values, nothing is run."""
    if len(body) > MAX_PYTHON or not PYTHON.match(body.lstrip()):
        return None
    try:
        calls = list(_python_calls(body))
    except (SyntaxError, TypeError, ValueError, RecursionError, MemoryError):
        return None
    return (calls, end) if calls else None


def bare_calls(text: str) -> list[WrittenCall]:
    """Calls that are a whole text, without any mark: JSON values, or Python between brackets."""
    stripped = text.strip()
    calls = as_json(stripped, 0, explicit=False)
    if calls is not None and not stripped[calls[1] :].strip(" \n\t;,"):
        return calls[0]
    if stripped.startswith("[") and stripped.endswith("]"):
        calls = as_python(stripped, len(stripped))
        return calls[0] if calls else []
    return []
