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
MESSAGE_SETTINGS = (
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
    for key in ("frequency_penalty", "presence_penalty"):
        if _number(given, key, 0.0, -2, 2) != 0:
            raise refusal(key, given[key], "0", "this model cannot honour it; use repetition_penalty")
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
