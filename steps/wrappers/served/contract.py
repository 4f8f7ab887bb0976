"""The chat contract: what a row may hold, and the checked request it becomes.

Part of the logged model: ``steps.wrappers.bundle`` joins the files of this folder into the one file that is logged, so nothing here
imports from ``steps``. Names and ranges follow the OpenAI chat completion request.
"""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE

ROLES = ("system", "developer", "user", "assistant", "tool")
MESSAGE_KEYS = frozenset({"role", "content", "name", "refusal", "tool_calls", "tool_call_id"})
GRAMMARS = ("regex", "lark")
MAX_STOPS = 16
MAX_CHOICES = 16  # answers one request may ask for
MAX_REQUEST_CHARACTERS = 4_000_000  # a longer text cannot fit any context and would only stall the tokenizer


def refusal(field: str, value: object, expected: str, cure: str | None = None) -> MlflowException:
    """Build the error of a request that breaks the contract; a scoring server answers it with status 400."""
    shown = repr(value)
    message = f"{field}={shown if len(shown) <= 200 else shown[:200] + '…'}: expected {expected}"
    return MlflowException(f"{message}; {cure}" if cure else message, error_code=INVALID_PARAMETER_VALUE)


@dataclass(frozen=True)
class Defaults:
    """What a request gets where it does not say otherwise.

    Args:
        max_new_tokens: tokens an answer may have.
        temperature: 0 is greedy.
        grammars: whether answers can be held to a grammar.
    """

    max_new_tokens: int = 256
    temperature: float = 0.0
    grammars: bool = True


@dataclass(frozen=True)
class Grammar:
    """What an answer must match: ``kind`` is ``json_schema``, ``regex`` or ``lark_grammar``."""

    kind: str
    text: str


@dataclass(frozen=True)
class Request:
    """One checked row: either ``prompt`` or ``messages``, and the settings it is answered with."""

    prompt: str | None
    messages: tuple[dict[str, Any], ...] | None
    tools: tuple[dict[str, Any], ...]
    temperature: float
    top_p: float
    top_k: int
    max_tokens: int
    min_tokens: int
    stop: tuple[str, ...]
    seed: int | None
    n: int
    repetition_penalty: float  # divides or multiplies scores of tokens in prompt and answer
    frequency_penalty: float  # taken from a token's score for each time it was generated
    presence_penalty: float  # taken once when it was generated at all
    grammar: Grammar | None
    stream: bool
    include_usage: bool
    limited: bool  # whether the request itself says max_tokens

    @property
    def greedy(self) -> bool:
        """Whether the most likely token is always taken."""
        return self.temperature == 0 or self.top_k == 1 or self.top_p == 0

    @property
    def penalised(self) -> bool:
        """Whether scores depend on how often a token was generated."""
        return self.frequency_penalty != 0 or self.presence_penalty != 0

    def within(self, limit: int) -> "Request":
        """The same request with at most ``limit`` new tokens."""
        return replace(self, max_tokens=limit, min_tokens=min(self.min_tokens, limit))


def absent(value: object) -> bool:
    """Whether a cell holds nothing: frames put NaN or None where a row does not have a column."""
    if value is None:
        return True
    if isinstance(value, float) and math.isnan(value):
        return True
    return type(value).__name__ in ("NAType", "NaTType")


def plain(value: Any) -> Any:
    """Turn NumPy scalars and arrays, Spark rows and tuples into plain Python, at any depth."""
    if hasattr(value, "tolist") and not isinstance(value, str | bytes):
        return plain(value.tolist())
    if hasattr(value, "asDict"):
        return plain(value.asDict(recursive=True))
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value


def rows_of(data: Any) -> list[dict[str, Any]]:
    """Split what ``predict`` was given into rows.

    A row is a mapping. A string stands for ``{"prompt": string}``; a mapping whose ``prompt`` is a list stands for a row each.

    Raises:
        MlflowException: ``data`` is none of these.
    """
    if hasattr(data, "to_dict") and hasattr(data, "columns"):  # a pandas frame, told by shape so that pandas need not be imported
        unnamed = len(data.columns) == 1 and data.columns[0] not in KEYS
        data = list(data.iloc[:, 0]) if unnamed else data.to_dict(orient="records")
    elif hasattr(data, "to_list"):
        data = data.to_list()
    data = plain(data)
    if isinstance(data, str):
        return [{"prompt": data}]
    if isinstance(data, Mapping):
        columns = dict(data)
        prompts = columns.get("prompt")
        if isinstance(prompts, list):
            return [
                {key: value[row] if isinstance(value, list) and len(value) == len(prompts) else value for key, value in columns.items()}
                for row in range(len(prompts))
            ]
        return [columns]
    if isinstance(data, list):
        if data and all(isinstance(row, Mapping) and set(row) <= MESSAGE_KEYS and "role" in row for row in data):
            return [{"messages": data}]
        rows: list[dict[str, Any]] = []
        for index, row in enumerate(data):
            if not isinstance(row, str | Mapping):
                raise refusal(f"row {index}", row, "a mapping with `messages` or `prompt`, or a string")
            rows.append({"prompt": row} if isinstance(row, str) else dict(row))
        return rows
    raise refusal("data", data, "a frame, a mapping or a list of mappings with `messages` or `prompt`, or a string")


def _number(row: Mapping[str, Any], key: str, default: float, low: float, high: float, *, above: bool = False) -> float:
    value = row.get(key)
    if value is None:
        return default
    bounds = f"a number {'above' if above else 'from'} {low:g}" + (f" to {high:g}" if math.isfinite(high) else "")
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise refusal(key, value, bounds)
    if value > high or value < low or (above and value == low):
        raise refusal(key, value, bounds)
    return float(value)


def _integer(row: Mapping[str, Any], key: str, default: int, low: int, high: int | None = None) -> int:
    value = row.get(key)
    if value is None:
        return default
    bounds = f"an integer of at least {low}" if high is None else f"an integer from {low} to {high}"
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value != int(value):
        raise refusal(key, value, bounds)  # a frame with a gap holds its integers as floats
    if value < low or (high is not None and value > high):
        raise refusal(key, value, bounds)
    return int(value)


def _boolean(row: Mapping[str, Any], key: str) -> bool:
    value = row.get(key)
    if value is None:
        return False
    if not isinstance(value, bool):
        raise refusal(key, value, "true or false")
    return value


def _stop(value: Any) -> tuple[str, ...]:
    if value is None:
        return ()
    stops = [value] if isinstance(value, str) else value
    if not isinstance(stops, list) or not all(isinstance(stop, str) and stop for stop in stops):
        raise refusal("stop", value, "a string or a list of strings, none empty")
    if len(stops) > MAX_STOPS:
        raise refusal("stop", value, f"at most {MAX_STOPS} strings")
    return tuple(stops)


def _text(field: str, value: str) -> str:
    if "\x00" in value:
        raise refusal(field, value, "text without NUL characters")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise refusal(field, value, "valid Unicode text", f"it holds a lone surrogate at character {error.start}") from error
    return value


def _content(field: str, value: Any) -> str:
    """Read a message's content: a string, or a list of text parts, which are joined."""
    if isinstance(value, str):
        return _text(field, value)
    if isinstance(value, list) and value:
        texts: list[str] = []
        for index, part in enumerate(value):
            if not isinstance(part, Mapping) or part.get("type") != "text" or not isinstance(part.get("text"), str):
                raise refusal(f"{field}[{index}]", part, "a part {'type': 'text', 'text': …}", "this model reads text alone")
            texts.append(_text(f"{field}[{index}].text", part["text"]))
        return "".join(texts)
    raise refusal(field, value, "a string or a list of text parts")


def _tool_calls(field: str, value: Any) -> list[dict[str, Any]]:
    if not isinstance(value, list) or not value:
        raise refusal(field, value, "a list of tool calls")
    for index, call in enumerate(value):
        function = call.get("function") if isinstance(call, Mapping) else None
        if not isinstance(function, Mapping) or not isinstance(function.get("name"), str) or not isinstance(function.get("arguments"), str):
            raise refusal(f"{field}[{index}]", call, "{'id': …, 'type': 'function', 'function': {'name': …, 'arguments': '<JSON>'}}")
    return [dict(call) for call in value]


def checked_messages(value: Any) -> tuple[dict[str, Any], ...]:
    """Check a conversation before it reaches a template: roles, keys, content, size.

    Raises:
        MlflowException: naming the message and the field.
    """
    if not isinstance(value, list) or not value:
        raise refusal("messages", value, "a list with at least one message")
    messages: list[dict[str, Any]] = []
    characters = 0
    for index, message in enumerate(value):
        field = f"messages[{index}]"
        if not isinstance(message, Mapping):
            raise refusal(field, message, "a mapping with role and content")
        given = {key: item for key, item in message.items() if not absent(item)}
        unknown = sorted(set(given) - MESSAGE_KEYS)
        if unknown:
            raise refusal(f"{field}.{unknown[0]}", given[unknown[0]], f"one of the keys {sorted(MESSAGE_KEYS)}")
        role = given.get("role")
        if role not in ROLES:
            raise refusal(f"{field}.role", role, f"one of {list(ROLES)}")
        clean: dict[str, Any] = {"role": role}
        calls = given.get("tool_calls")
        if "content" in given or not (role == "assistant" and calls):
            clean["content"] = _content(f"{field}.content", given.get("content"))
            characters += len(clean["content"])
        else:
            clean["content"] = ""
        if calls:
            if role != "assistant":
                raise refusal(f"{field}.tool_calls", calls, "tool calls in assistant messages alone")
            clean["tool_calls"] = _tool_calls(f"{field}.tool_calls", calls)
            characters += len(json.dumps(calls))
        for key in ("name", "tool_call_id", "refusal"):
            if key in given:
                if not isinstance(given[key], str):
                    raise refusal(f"{field}.{key}", given[key], "a string")
                clean[key] = _text(f"{field}.{key}", given[key])
        messages.append(clean)
    if characters > MAX_REQUEST_CHARACTERS:
        raise refusal("messages", f"{characters} characters", f"at most {MAX_REQUEST_CHARACTERS} characters")
    return tuple(messages)


def checked_tools(value: Any, choice: Any) -> tuple[dict[str, Any], ...]:
    """Check the tools a request offers, as function definitions with a JSON schema each."""
    if choice is not None and choice not in ("auto", "none"):
        raise refusal("tool_choice", choice, "'auto' or 'none'", "a forced tool cannot be honoured; ask for it with response_format")
    if value is None or value == []:
        return ()
    if not isinstance(value, list):
        raise refusal("tools", value, "a list of function definitions")
    for index, tool in enumerate(value):
        function = tool.get("function") if isinstance(tool, Mapping) else None
        if not isinstance(function, Mapping) or tool.get("type", "function") != "function" or not isinstance(function.get("name"), str):
            raise refusal(f"tools[{index}]", tool, "{'type': 'function', 'function': {'name': …, 'parameters': {…}}}")
    return () if choice == "none" else tuple(dict(tool) for tool in value)


def _json_grammar(schema: Mapping[str, Any]) -> Grammar:
    """Hold an answer to a schema, in the compact way of writing JSON: free white space lets a small model write nothing else."""
    return Grammar("json_schema", json.dumps({"x-guidance": {"whitespace_flexible": False}, **schema}))


def checked_grammar(value: Any, *, possible: bool) -> Grammar | None:
    """Read ``response_format``: text, json_object, json_schema, regex or lark.

    Raises:
        MlflowException: an unknown type, a schema that is no JSON schema, or a grammar where ``possible`` is false.
    """
    if value is None:
        return None
    if not isinstance(value, Mapping) or not isinstance(value.get("type"), str):
        raise refusal("response_format", value, "{'type': 'text' | 'json_object' | 'json_schema' | 'regex' | 'lark', …}")
    kind = value["type"]
    if kind == "text":
        return None
    if kind not in ("json_object", "json_schema", *GRAMMARS):
        raise refusal("response_format.type", kind, "one of text, json_object, json_schema, regex, lark")
    if not possible:
        raise refusal("response_format.type", kind, "'text'", "this variant cannot hold an answer to a grammar; the onnx variant can")
    if kind == "json_object":
        return _json_grammar({"type": "object"})
    if kind == "json_schema":
        holder = value.get("json_schema")
        schema = holder.get("schema", holder) if isinstance(holder, Mapping) else value.get("schema")
        if not isinstance(schema, Mapping):
            raise refusal("response_format.json_schema", holder, "{'name': …, 'schema': {…}}")
        return _json_grammar(schema)
    text = value.get(kind) or value.get("pattern") or value.get("grammar")
    if not isinstance(text, str) or not text:
        raise refusal(f"response_format.{kind}", text, f"the {kind} as a string")
    return Grammar("regex" if kind == "regex" else "lark_grammar", text)


SETTINGS = (
    *("temperature", "top_p", "top_k", "max_tokens", "max_completion_tokens", "max_new_tokens", "min_tokens", "stop", "seed", "n"),
    *("repetition_penalty", "frequency_penalty", "presence_penalty", "response_format", "tools", "tool_choice", "logprobs"),
)
KEYS = frozenset({"prompt", "messages", *SETTINGS, "stream", "stream_options", "custom_inputs", "model", "user"})


def request_of(row: Mapping[str, Any], params: Mapping[str, Any] | None, defaults: Defaults) -> Request:
    """Check one row; what it does not say comes from ``params``, then from ``defaults``.

    Raises:
        MlflowException: an unknown key, a value out of range, or a setting that cannot be honoured.
    """
    given = {key: value for key, value in row.items() if not absent(value)}
    for key, value in plain(dict(params or {})).items():
        if not absent(value) and value != [] and key not in given:
            given[key] = value
    unknown = sorted(set(given) - KEYS)
    if unknown:
        raise refusal(unknown[0], given[unknown[0]], f"one of the keys {sorted(KEYS)}")
    if given.get("custom_inputs"):
        raise refusal("custom_inputs", given["custom_inputs"], "nothing, as this model has no custom inputs")
    if _boolean(given, "logprobs"):
        raise refusal("logprobs", True, "false, as this model does not report log probabilities")
    for key in ("model", "user"):  # an address and a label: no setting of the answer
        if key in given and not isinstance(given[key], str):
            raise refusal(key, given[key], "a string")
    prompt, messages = given.get("prompt"), given.get("messages")
    if (prompt is None) == (messages is None):
        raise refusal("messages, prompt", "both" if prompt is not None else "neither", "one of the two in each row")
    if prompt is not None:
        if not isinstance(prompt, str) or not prompt:
            raise refusal("prompt", prompt, "a string that is not empty")
        if len(prompt) > MAX_REQUEST_CHARACTERS:
            raise refusal("prompt", f"{len(prompt)} characters", f"at most {MAX_REQUEST_CHARACTERS} characters")
        _text("prompt", prompt)
    tools = checked_tools(given.get("tools"), given.get("tool_choice"))
    if tools and prompt is not None:
        raise refusal("tools", "given", "none with a prompt, which is templated already")
    limits = [key for key in ("max_tokens", "max_completion_tokens", "max_new_tokens") if key in given]
    if len({given[key] for key in limits if isinstance(given[key], int | float)}) > 1:
        raise refusal(" and ".join(limits), [given[key] for key in limits], "one limit")
    max_tokens = _integer(given, limits[0], 0, 1) if limits else defaults.max_new_tokens
    min_tokens = _integer(given, "min_tokens", 0, 0)
    if min_tokens > max_tokens:
        raise refusal("min_tokens", min_tokens, f"at most max_tokens, {max_tokens}")
    options = given.get("stream_options", {})
    if not isinstance(options, Mapping) or set(options) - {"include_usage"}:
        raise refusal("stream_options", options, "{'include_usage': true | false}")
    grammar = checked_grammar(given.get("response_format"), possible=defaults.grammars)
    if grammar and tools:
        raise refusal("response_format", given["response_format"], "'text' when tools are offered")
    return Request(
        prompt=prompt,
        messages=None if messages is None else checked_messages(messages),
        tools=tools,
        temperature=_number(given, "temperature", defaults.temperature, 0, 2),
        top_p=_number(given, "top_p", 1.0, 0, 1),
        top_k=_integer(given, "top_k", 0, 0),
        max_tokens=max_tokens,
        min_tokens=min_tokens,
        stop=_stop(given.get("stop")),
        seed=_integer(given, "seed", 0, 0, 2**31 - 1) if "seed" in given else None,
        n=_integer(given, "n", 1, 1, MAX_CHOICES),
        repetition_penalty=_number(given, "repetition_penalty", 1.0, 0, 10, above=True),
        frequency_penalty=_number(given, "frequency_penalty", 0.0, -2, 2),
        presence_penalty=_number(given, "presence_penalty", 0.0, -2, 2),
        grammar=grammar,
        stream=_boolean(given, "stream"),
        include_usage=bool(options.get("include_usage", False)),
        limited=bool(limits),
    )


def requests_of(data: Any, params: Mapping[str, Any] | None, defaults: Defaults) -> list[Request]:
    """Check every row before any is answered, so that a bad row costs nothing; the error names its index."""
    requests: list[Request] = []
    rows = rows_of(data)
    for index, row in enumerate(rows):
        try:
            requests.append(request_of(row, params, defaults))
        except MlflowException as error:
            if len(rows) == 1:
                raise
            raise MlflowException(f"row {index}: {error.message}", error_code=INVALID_PARAMETER_VALUE) from error
    return requests


def longest_held(text: str, stops: Sequence[str]) -> int:
    """Count the characters at the end of ``text`` that may be the beginning of a stop string."""
    longest = max((len(stop) for stop in stops), default=1)
    for length in range(min(longest - 1, len(text)), 0, -1):
        if any(stop.startswith(text[-length:]) for stop in stops):
            return length
    return 0


def first_stop(text: str, stops: Iterable[str]) -> int | None:
    """Find where the earliest stop string begins."""
    found = [position for position in (text.find(stop) for stop in stops) if position >= 0]
    return min(found, default=None)
