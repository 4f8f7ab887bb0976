"""Tool calls and results of a conversation, in the shape that a chat template takes."""

import contextlib
import json
import re
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from .template_capabilities import TemplateCapabilities
from .template_tools import ID_FORMS, CallShape, call_id, written_calls


def with_arguments(message: Mapping[str, Any]) -> dict[str, Any]:
    """A message whose tool calls have their arguments as values, not as JSON."""
    shaped = dict(message)
    if "tool_calls" in shaped:
        calls = []
        for call in shaped["tool_calls"]:
            function = dict(call["function"])
            with contextlib.suppress(ValueError):  # the template prints what is not JSON as it is
                function["arguments"] = json.loads(function["arguments"])
            calls.append({**call, "function": function})
        shaped["tool_calls"] = calls
    return shaped


def with_tool_calls(
    messages: Sequence[Mapping[str, Any]], capabilities: TemplateCapabilities
) -> Iterator[dict[str, Any]]:
    """Messages with tool calls and results as the template takes them."""
    shape = capabilities.tool_calls
    if shape is None or not any(
        message.get("tool_calls") or message["role"] == "tool" for message in messages
    ):
        yield from map(dict, messages)
        return
    numbered = deque(_numbered(messages, shape, named=capabilities.named_results))
    while numbered:
        message = numbered.popleft()
        calls = message.get("tool_calls")
        if not calls:
            yield message
        elif shape.marks:
            written = written_calls(
                shape.marks,
                [(call["function"]["name"], call["function"]["arguments"]) for call in calls],
            )
            said = message["content"]
            content = f"{said}\n{written}" if said else written
            yield {**_without(message, "tool_calls"), "content": content}
        else:
            if shape.arguments == "text":
                message["tool_calls"] = [_as_text(call) for call in calls]
            message["content"] = (message["content"] if shape.beside_text else None) or shape.empty
            if shape.parallel or len(calls) == 1:
                yield message
                continue
            results = []
            while numbered and numbered[0]["role"] == "tool":
                results.append(numbered.popleft())
            yield from _one_by_one(message, results, shape.empty)


def _one_by_one(
    message: Mapping[str, Any], results: list[dict[str, Any]], empty: str | None
) -> Iterator[dict[str, Any]]:
    """A message with several calls as several messages, each followed by its result."""
    for call in message["tool_calls"]:
        yield {**message, "tool_calls": [call]}
        message = {**_without(message, "reasoning_content"), "content": empty}
        own = [result for result in results if result.get("tool_call_id") == call.get("id")]
        own = own or results[:1]
        yield from own
        results = [result for result in results if result not in own]
    yield from results


def _numbered(
    messages: Sequence[Mapping[str, Any]], shape: CallShape, *, named: bool
) -> Iterator[dict[str, Any]]:
    """Messages whose tool calls and results have ids, and names, that the template takes; those
    that it takes as they are stay.
    """
    ids: dict[str, str] = {}  # as the template takes them, by those of the request
    names: dict[str, str] = {}
    waiting: list[str] = []  # calls without a result
    number = 0
    for message in messages:
        made = dict(message)
        if message.get("tool_calls"):
            calls = []
            for call in message["tool_calls"]:
                name, given = call["function"]["name"], str(call.get("id") or f"{len(ids)}")
                fits = shape.ids == "any" or (
                    "id" in call and re.fullmatch(ID_FORMS[shape.ids], given)
                )
                ids[given] = given if fits else call_id(shape, given, name, number)
                names[ids[given]] = name
                waiting.append(ids[given])
                number += 1
                calls.append(
                    {**call, "id": ids[given]} if "id" in call or shape.ids != "any" else call
                )
            made["tool_calls"] = calls
        elif message["role"] == "tool":
            named_id = message.get("tool_call_id")
            identity = ids.get(str(named_id), named_id) if named_id else next(iter(waiting), None)
            if identity and shape.ids != "any" and not re.fullmatch(ID_FORMS[shape.ids], identity):
                identity = call_id(shape, identity, message.get("name", ""), number)
            if identity in waiting:
                waiting.remove(identity)
            if identity and (named_id or shape.ids != "any"):
                made["tool_call_id"] = identity
            if named and identity in names:
                made.setdefault("name", names[identity])
        yield made


def _without(message: Mapping[str, Any], key: str) -> dict[str, Any]:
    return {name: value for name, value in message.items() if name != key}


def _as_text(call: Mapping[str, Any]) -> dict[str, Any]:
    function = call["function"]
    arguments = function["arguments"]
    text = arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)
    return {**call, "function": {**function, "arguments": text}}
