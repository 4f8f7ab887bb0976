"""The ways in which language models write tool calls, a small reader for each.

A reader is given a text and where its format begins, and returns the calls with where they end, or
None where they are malformed. Formats are those of Qwen and Hermes, Phi, Granite, Mistral, Llama 3,
DeepSeek, Kimi, GLM, LFM and Qwen-Coder, as their model cards and chat templates show them.
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
HEADED = re.compile(  # DeepSeek and Kimi: begin, perhaps a kind, separator, name or arguments
    r"\s*(?:<\uff5ctool\u2581call\u2581begin\uff5c>|<\|tool_call_begin\|>)"
    r"(?:function(?=<\uff5c))?(?:<\uff5ctool\u2581sep\uff5c>)?\s*([^<\s]+?)\s*(?:<\uff5ctool\u2581sep\uff5c>|<\|tool_call_argument_begin\|>|\n)"
)
HEADED_END = re.compile(r"\s*(?:<\uff5ctool\u2581call\u2581end\uff5c>|<\|tool_call_end\|>)")


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


DECODER = json.JSONDecoder(parse_constant=_refuse_constant)


def _after_space(text: str, position: int) -> int:
    return SPACE.match(text, position).end()  # type: ignore[union-attr]  # it matches anything


def json_values(text: str, position: int) -> tuple[list[Any], int] | None:
    """One or more JSON values with white space, commas or semicolons between them; lists are taken
    apart.
    """
    values: list[Any] = []
    end = position
    while text[position : position + 1] in ("{", "["):
        try:
            value, end = DECODER.raw_decode(text, position)
        except (ValueError, RecursionError):
            return None
        values += value if isinstance(value, list) else [value]
        position = _after_space(text, end)
        if text[position : position + 1] in (";", ","):
            position = _after_space(text, position + 1)
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


def _as_json(text: str, position: int, *, explicit: bool = True) -> Read:
    found = json_values(text, position)
    calls = [call_of(value, explicit=explicit) for value in found[0]] if found else []
    whole = [call for call in calls if call is not None]
    return (whole, found[1]) if found and whole and len(whole) == len(calls) else None


def _as_function_tags(text: str, position: int) -> Read:
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
    position = _after_space(text, position)
    return (
        ([call], position + len("</function>"))
        if text.startswith("</function>", position)
        else None
    )


def _as_argument_pairs(text: str, position: int) -> Read:
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


def _as_named_arguments(text: str, position: int) -> Read:
    """``name[ARGS]{…}``, with ``[CALL_ID]…`` between, or with neither; several in a row."""
    calls: list[WrittenCall] = []
    while named := NAME.match(text, position):
        start = named.end()
        identity = CALL_IDENTITY.match(text, start)
        start = identity.end() if identity else start
        start = _after_space(
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


def _as_fence(text: str, position: int, *, explicit: bool = True) -> Read:
    """A block between three backticks."""
    fence = FENCE.match(text, position)
    if fence is None:
        return None
    start = _after_space(text, fence.end())
    body = _as_json(text, start, explicit=explicit)
    if body is None and (explicit or fence.group(1) == "tool_code"):
        close = text.find("```", start)
        body = as_python(text[start:close], close) if close >= 0 else None
    if body is None:
        return None
    end = _after_space(text, body[1])
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


def _tagged(opening: str, closing: str) -> Reader:
    """Calls in any of the ways after a mark; a closing mark that was left out, as at the end of an
    answer, is not missed.
    """

    def read(text: str, position: int) -> Read:
        start = _after_space(text, position + len(opening))
        for reader in (
            _as_json,
            _as_function_tags,
            _as_argument_pairs,
            _as_named_arguments,
            _as_fence,
        ):
            found = reader(text, start)
            if found is not None:
                break
        else:
            if not PYTHON.match(text, start):
                return None
            close = text.find(closing, start) if closing else -1
            end = close if close >= 0 else len(text)
            found = as_python(text[start:end], end)
        if found is None:
            return None
        end = _after_space(text, found[1])
        return found[0], (
            end + len(closing) if closing and text.startswith(closing, end) else found[1]
        )

    return read


def _headed(opening: str, closing: str) -> Reader:
    """DeepSeek's and Kimi's calls: each with a head that names it."""

    def read(text: str, position: int) -> Read:
        calls: list[WrittenCall] = []
        position += len(opening)
        while head := HEADED.match(text, position):
            start = _after_space(text, head.end())
            fenced = FENCE.match(text, start)
            try:
                arguments, end = DECODER.raw_decode(
                    text, _after_space(text, fenced.end()) if fenced else start
                )
            except (ValueError, RecursionError):
                return None
            end = _after_space(text, end)
            end += 3 if fenced and text.startswith("```", end) else 0
            name = (
                re.sub(r"^functions\.|:\d+$", "", head.group(1))
                if head.group().find("argument") >= 0
                else head.group(1)
            )
            calls.append(WrittenCall(name, arguments))
            closed = HEADED_END.match(text, end)
            position = closed.end() if closed else end
        after = _after_space(text, position)
        return (
            (calls, after + len(closing) if text.startswith(closing, after) else position)
            if calls
            else None
        )

    return read


DEEPSEEK = ("<\uff5ctool\u2581calls\u2581begin\uff5c>", "<\uff5ctool\u2581calls\u2581end\uff5c>")
TAGS = (
    ("<tool_call>", "</tool_call>"),
    ("<|tool_call|>", "<|/tool_call|>"),
    ("<|tool_call_start|>", "<|tool_call_end|>"),
    ("<tool_calls>", "</tool_calls>"),
    ("<function_call>", "</function_call>"),
    ("<|action_start|><|plugin|>", "<|action_end|>"),
    ("<|python_tag|>", ""),
    ("[TOOL_CALLS]", ""),
)
READERS: dict[str, Reader] = {  # by what the format begins with
    **{opening: _tagged(opening, closing) for opening, closing in TAGS},
    **{
        opening: _headed(opening, closing)
        for opening, closing in (
            DEEPSEEK,
            ("<|tool_calls_section_begin|>", "<|tool_calls_section_end|>"),
        )
    },
    "<function=": _as_function_tags,
    "```": lambda text, position: _as_fence(text, position, explicit=False),
}
INNER_MARKS = (  # that stand within calls; special tokens in some vocabularies
    *(
        "[ARGS]",
        "[CALL_ID]",
        "<\uff5ctool\u2581call\u2581begin\uff5c>",
        "<\uff5ctool\u2581call\u2581end\uff5c>",
        "<\uff5ctool\u2581sep\uff5c>",
    ),
    *(
        "<|tool_call_begin|>",
        "<|tool_call_argument_begin|>",
        "<|tool_call_end|>",
        "<|action_start|>",
        "<|plugin|>",
    ),
)
MARKS = frozenset(
    {
        *INNER_MARKS,
        *(mark for pair in TAGS for mark in pair if mark),
        *DEEPSEEK,
        "<|tool_calls_section_begin|>",
        "<|tool_calls_section_end|>",
    }
)


def bare_calls(text: str) -> list[WrittenCall]:
    """Calls that are all there is of a text, without any mark: JSON values, or Python between
    brackets.
    """
    stripped = text.strip()
    found = _as_json(stripped, 0, explicit=False)
    if found is not None and not stripped[found[1] :].strip(" \n\t;,"):
        return found[0]
    read = (
        as_python(stripped, len(stripped))
        if stripped.startswith("[") and stripped.endswith("]")
        else None
    )
    return read[0] if read else []
