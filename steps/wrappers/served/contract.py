"""The chat contract: what a row may hold, and the checked request it becomes.

Names and ranges follow the OpenAI chat completion request.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE

from .grammars import Grammar, checked_grammar
from .invalid_request import (
    MAX_REQUEST_CHARACTERS,
    absent,
    behind_server,
    characters_in,
    checked_text,
    invalid_request,
    plain,
    require_count,
)
from .messages import MESSAGE_KEYS, checked_messages, checked_tools
from .template_capabilities import TemplateCapabilities
from .template_kwargs import KWARGS, checked_template_kwargs

MAX_STOPS = 16
# of one of them: the end of an answer is compared with every beginning of it, token after token
MAX_STOP_CHARACTERS = 512
# of one request to a scoring server; in a batch job there is no end to them
MAX_SERVED_ROWS = 1_000
MAX_SERVED_CHARACTERS = 8_000_000  # of all texts in it

MAX_CHOICES = 16  # answers one request may ask for

# temperatures below it take the most likely token: dividing scores by them leaves float32 behind
COLDEST = 1e-5

NARROWEST = 1e-6  # a top_p below one in the size of a vocabulary leaves the most likely token alone

# a score multiplied by more than a hundred is not a preference any more, and soon not a number
LEAST_REPETITION_PENALTY = 0.01


@dataclass(frozen=True)
class Defaults:
    """What a request gets where it does not say otherwise.

    Args:
        max_new_tokens: tokens an answer may have.
        temperature: 0 is greedy.
        grammars: whether answers can be held to a grammar.
        capabilities: of the chat template; None where nothing is known of it.
        template_kwargs: variables for the template.
    """

    max_new_tokens: int = 256
    temperature: float = 0.0
    grammars: bool = True
    capabilities: TemplateCapabilities | None = None
    template_kwargs: Mapping[str, Any] = field(default_factory=dict)


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
    # what the chat template is given beside messages and tools
    template_kwargs: Mapping[str, Any] = field(default_factory=dict)

    @property
    def greedy(self) -> bool:
        """Whether the most likely token is always taken."""
        return self.temperature < COLDEST or self.top_k == 1 or self.top_p <= NARROWEST

    @property
    def tool_names(self) -> tuple[str, ...]:
        """Names of the tools that are offered."""
        return tuple(tool["function"]["name"] for tool in self.tools)

    @property
    def penalised(self) -> bool:
        """Whether scores depend on how often a token was generated."""
        return self.frequency_penalty != 0 or self.presence_penalty != 0

    def within(self, limit: int) -> "Request":
        """The same request with at most ``limit`` new tokens."""
        return replace(self, max_tokens=limit)


def rows_of(data: Any) -> list[dict[str, Any]]:
    """Split what ``predict`` was given into rows.

    A row is a mapping. A string stands for ``{"prompt": string}``; a mapping whose ``prompt`` is a
    list stands for a row each: of a list as long as that, each row gets its own item, except where
    the list itself is one value (``stop``, ``tools``), which every row gets.

    Raises:
        MlflowException: ``data`` is none of these.
    """
    # a pandas frame, told by shape so that pandas need not be imported
    if hasattr(data, "to_dict") and hasattr(data, "columns"):
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
                {
                    key: value[row] if _dealt(key, value, len(prompts)) else value
                    for key, value in columns.items()
                }
                for row in range(len(prompts))
            ]
        return [columns]
    if isinstance(data, list):
        if data and all(
            isinstance(row, Mapping) and set(row) <= MESSAGE_KEYS and "role" in row for row in data
        ):
            return [{"messages": data}]
        rows: list[dict[str, Any]] = []
        for index, row in enumerate(data):
            if not isinstance(row, str | Mapping):
                raise invalid_request(
                    f"row {index}", row, "a mapping with `messages` or `prompt`, or a string"
                )
            rows.append({"prompt": row} if isinstance(row, str) else dict(row))
        return rows
    raise invalid_request(
        "data",
        data,
        "a frame, a mapping or a list of mappings with `messages` or `prompt`, or a string",
    )


def _dealt(key: str, value: Any, rows: int) -> bool:
    """Whether a list holds a value for each row; ``["a", "b"]`` under ``stop``, or definitions
    under ``tools``, are one value.
    """
    if not isinstance(value, list) or len(value) != rows:
        return False
    one = {"stop": str, "tools": Mapping}.get(key)
    return one is None or not all(isinstance(item, one) for item in value)


def _number(row: Mapping[str, Any], key: str, default: float, low: float, high: float) -> float:
    value = row.get(key)
    if value is None:
        return default
    # NaN is in no range
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        raise invalid_request(key, value, f"a number from {low:g} to {high:g}")
    return float(value)


def _integer(
    row: Mapping[str, Any], key: str, default: int, low: int, high: int | None = None
) -> int:
    value = row.get(key)
    if value is None:
        return default
    bounds = f"an integer of at least {low}" if high is None else f"an integer from {low} to {high}"
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise invalid_request(key, value, bounds)
    # a frame with a gap holds its integers as floats
    if isinstance(value, float) and not (math.isfinite(value) and value.is_integer()):
        raise invalid_request(key, value, bounds)
    if value < low or (high is not None and value > high):
        raise invalid_request(key, value, bounds)
    return int(value)


def _boolean(row: Mapping[str, Any], key: str) -> bool:
    value = row.get(key)
    if value is None:
        return False
    if not isinstance(value, bool):
        raise invalid_request(key, value, "true or false")
    return value


def _stop(value: Any) -> tuple[str, ...]:
    if value is None:
        return ()
    stops = [value] if isinstance(value, str) else value
    if not isinstance(stops, list) or not all(isinstance(stop, str) and stop for stop in stops):
        raise invalid_request("stop", value, "a string or a list of strings, none empty")
    if len(stops) > MAX_STOPS:
        raise invalid_request("stop", value, f"at most {MAX_STOPS} strings")
    if any(len(stop) > MAX_STOP_CHARACTERS for stop in stops):
        raise invalid_request(
            "stop",
            f"{max(map(len, stops))} characters",
            f"strings of at most {MAX_STOP_CHARACTERS} characters",
        )
    return tuple(stops)


LIMITS = ("max_tokens", "max_completion_tokens", "max_new_tokens")  # three names of one setting

SETTINGS = (
    *("temperature", "top_p", "top_k", *LIMITS, "min_tokens", "stop", "seed", "n"),
    *(
        "repetition_penalty",
        "frequency_penalty",
        "presence_penalty",
        "response_format",
        "tools",
        "tool_choice",
        "logprobs",
    ),
    *(KWARGS, "enable_thinking"),
)

KEYS = frozenset(
    {"prompt", "messages", *SETTINGS, "stream", "stream_options", "custom_inputs", "model", "user"}
)


def request_of(
    row: Mapping[str, Any], params: Mapping[str, Any] | None, defaults: Defaults
) -> Request:
    """Check one row; what it does not say comes from ``params``, then from ``defaults``.

    Raises:
        MlflowException: an unknown key, a value out of range, or a setting that cannot be honoured.
    """
    given = {key: value for key, value in row.items() if not absent(value)}
    # a row's limit goes before params' under any name
    own = {*given, *(LIMITS if any(key in given for key in LIMITS) else ())}
    for key, value in plain(dict(params or {})).items():
        if not absent(value) and value != [] and key not in own:
            given[key] = value
    unknown = sorted(set(given) - KEYS)
    if unknown:
        raise invalid_request(unknown[0], given[unknown[0]], f"one of the keys {sorted(KEYS)}")
    if given.get("custom_inputs"):
        raise invalid_request(
            "custom_inputs", given["custom_inputs"], "nothing, as this model has no custom inputs"
        )
    if _boolean(given, "logprobs"):
        raise invalid_request(
            "logprobs", True, "false, as this model does not report log probabilities"
        )
    for key in ("model", "user"):  # an address and a label: no setting of the answer
        if key in given and not isinstance(given[key], str):
            raise invalid_request(key, given[key], "a string")
    prompt, messages = given.get("prompt"), given.get("messages")
    if (prompt is None) == (messages is None):
        raise invalid_request(
            "messages, prompt",
            "both" if prompt is not None else "neither",
            "one of the two in each row",
        )
    if prompt is not None:
        if not isinstance(prompt, str) or not prompt:
            raise invalid_request("prompt", prompt, "a string that is not empty")
        if len(prompt) > MAX_REQUEST_CHARACTERS:
            raise invalid_request(
                "prompt",
                f"{len(prompt)} characters",
                f"at most {MAX_REQUEST_CHARACTERS} characters",
            )
        checked_text("prompt", prompt)
    tools = checked_tools(given.get("tools"), given.get("tool_choice"))
    if tools and prompt is not None:
        raise invalid_request("tools", "given", "none with a prompt, which is templated already")
    named = [key for key in (KWARGS, "enable_thinking") if key in given]
    if named and prompt is not None:
        raise invalid_request(
            named[0], given[named[0]], "nothing with a prompt, which is templated already"
        )
    template_kwargs = checked_template_kwargs(
        given.get(KWARGS), given.get("enable_thinking"), defaults.capabilities
    )
    limits = [key for key in LIMITS if key in given]
    if len({given[key] for key in limits if isinstance(given[key], int | float)}) > 1:
        raise invalid_request(" and ".join(limits), [given[key] for key in limits], "one limit")
    max_tokens = _integer(given, limits[0], 0, 1) if limits else defaults.max_new_tokens
    min_tokens = _integer(given, "min_tokens", 0, 0)
    if min_tokens > max_tokens:
        raise invalid_request("min_tokens", min_tokens, f"at most max_tokens, {max_tokens}")
    options = given.get("stream_options", {})
    if not isinstance(options, Mapping) or set(options) - {"include_usage"}:
        raise invalid_request("stream_options", options, "{'include_usage': true | false}")
    grammar = checked_grammar(given.get("response_format"), possible=defaults.grammars)
    if grammar and tools:
        raise invalid_request(
            "response_format", given["response_format"], "'text' when tools are offered"
        )
    stop = _stop(given.get("stop"))
    if grammar and stop:
        raise invalid_request(
            "stop",
            list(stop),
            "none with response_format",
            "it would cut the answer before it is whole; let the grammar end it",
        )
    if grammar and min_tokens:
        raise invalid_request(
            "min_tokens",
            min_tokens,
            "0 with response_format",
            "the grammar alone says when an answer is whole",
        )
    return Request(
        prompt=prompt,
        messages=None if messages is None else checked_messages(messages),
        tools=tools,
        temperature=_number(given, "temperature", defaults.temperature, 0, 2),
        top_p=_number(given, "top_p", 1.0, 0, 1),
        top_k=_integer(given, "top_k", 0, 0),
        max_tokens=max_tokens,
        min_tokens=min_tokens,
        stop=stop,
        seed=_integer(given, "seed", 0, 0, 2**31 - 1) if "seed" in given else None,
        n=_integer(given, "n", 1, 1, MAX_CHOICES),
        repetition_penalty=_number(given, "repetition_penalty", 1.0, LEAST_REPETITION_PENALTY, 10),
        frequency_penalty=_number(given, "frequency_penalty", 0.0, -2, 2),
        presence_penalty=_number(given, "presence_penalty", 0.0, -2, 2),
        grammar=grammar,
        stream=_boolean(given, "stream"),
        include_usage=bool(options.get("include_usage", False)),
        limited=bool(limits),
        template_kwargs={} if messages is None else {**defaults.template_kwargs, **template_kwargs},
    )


def requests_of(data: Any, params: Mapping[str, Any] | None, defaults: Defaults) -> list[Request]:
    """Check every row before any is answered, so that a bad row costs nothing; the error names its
    index.

    Raises:
        MlflowException: as ``request_of``; behind a scoring server also more rows or characters
            than one request may have.
    """
    requests: list[Request] = []
    rows = rows_of(data)
    if behind_server():
        require_count("rows", rows, MAX_SERVED_ROWS, "rows")
        characters = sum(characters_in(row) for row in rows)
        if characters > MAX_SERVED_CHARACTERS:
            raise invalid_request(
                "rows",
                f"{characters} characters",
                f"at most {MAX_SERVED_CHARACTERS} in one request",
            )
    for index, row in enumerate(rows):
        try:
            requests.append(request_of(row, params, defaults))
        except MlflowException as error:
            if len(rows) == 1:
                raise
            raise MlflowException(
                f"row {index}: {error.message}", error_code=INVALID_PARAMETER_VALUE
            ) from error
    return requests
