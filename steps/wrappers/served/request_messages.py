"""Messages of a request, checked before they reach a template."""

import contextlib
import json
from collections.abc import Mapping
from typing import Any

from .invalid_request import (
    absent,
    checked_text,
    checked_texts,
    invalid_request,
    require_characters,
    require_count,
)
from .request_neutral import NEUTRAL_IN_MESSAGES, says_nothing

ROLES = ("system", "developer", "user", "assistant", "tool")

MESSAGE_KEYS = frozenset(
    {
        *("role", "content", "name", "refusal", "reasoning_content", "tool_calls", "tool_call_id"),
        *NEUTRAL_IN_MESSAGES,
    }
)

MAX_MESSAGES = 4_096
MAX_PARTS = 4_096  # of one message: text parts or tool calls


def _content(field: str, value: Any) -> str:
    """Read a message's content: a string, or a list of text parts, which are joined."""
    if isinstance(value, str):
        return checked_text(field, value)
    if isinstance(value, list) and value:
        require_count(field, value, MAX_PARTS, "parts")
        texts: list[str] = []
        for index, part in enumerate(value):
            if (
                not isinstance(part, Mapping)
                or part.get("type") != "text"
                or not isinstance(part.get("text"), str)
            ):
                raise invalid_request(
                    f"{field}[{index}]",
                    part,
                    "a part {'type': 'text', 'text': …}",
                    "this model reads text alone",
                )
            texts.append(checked_text(f"{field}[{index}].text", part["text"]))
        return "".join(texts)
    raise invalid_request(field, value, "a string or a list of text parts")


def _tool_calls(field: str, value: Any) -> tuple[list[dict[str, Any]], int]:
    """Check the tool calls of a message; returns them and their characters."""
    if not isinstance(value, list) or not value:
        raise invalid_request(field, value, "a list of tool calls")
    require_count(field, value, MAX_PARTS, "tool calls")
    for index, call in enumerate(value):
        function = call.get("function") if isinstance(call, Mapping) else None
        if (
            not isinstance(function, Mapping)
            or not isinstance(function.get("name"), str)
            or not isinstance(function.get("arguments"), str)
        ):
            raise invalid_request(
                f"{field}[{index}]",
                call,
                "{'id': …, 'type': 'function', 'function': {'name': …, 'arguments': '<JSON>'}}",
            )
        arguments: Any = None
        try:
            with contextlib.suppress(ValueError):  # a template prints what is not JSON as it is
                arguments = json.loads(function["arguments"])
        except RecursionError as error:
            raise invalid_request(
                f"{field}[{index}].function.arguments",
                function["arguments"],
                "values less deeply nested",
            ) from error
        checked_texts(f"{field}[{index}].function.arguments", arguments)
    return [dict(call) for call in value], checked_texts(field, value)


def checked_messages(value: Any) -> tuple[dict[str, Any], ...]:
    """Check a conversation before it reaches a template: roles, keys, content, size.

    Raises:
        MlflowException: naming the message and the field.
    """
    if not isinstance(value, list) or not value:
        raise invalid_request("messages", value, "a list with at least one message")
    require_count("messages", value, MAX_MESSAGES, "messages")
    messages: list[dict[str, Any]] = []
    characters = 0
    for index, message in enumerate(value):
        field = f"messages[{index}]"
        if not isinstance(message, Mapping):
            raise invalid_request(field, message, "a mapping with role and content")
        given = {key: item for key, item in message.items() if not absent(item)}
        unknown = sorted(set(given) - MESSAGE_KEYS)
        if unknown:
            raise invalid_request(
                f"{field}.{unknown[0]}",
                given[unknown[0]],
                f"one of the keys {sorted(MESSAGE_KEYS)}",
            )
        for key in sorted(NEUTRAL_IN_MESSAGES & set(given)):
            if not says_nothing(given[key]):
                raise invalid_request(
                    f"{field}.{key}", given[key], "nothing in it, as this model reads text alone"
                )
        role = given.get("role")
        if role not in ROLES:
            raise invalid_request(f"{field}.role", role, f"one of {list(ROLES)}")
        clean: dict[str, Any] = {"role": role}
        calls = given.get("tool_calls")
        if "content" in given or not (
            role == "assistant" and (calls or "reasoning_content" in given)
        ):
            clean["content"] = _content(f"{field}.content", given.get("content"))
            characters += len(clean["content"])
        else:
            clean["content"] = ""
        if calls:
            if role != "assistant":
                raise invalid_request(
                    f"{field}.tool_calls", calls, "tool calls in assistant messages alone"
                )
            clean["tool_calls"], length = _tool_calls(f"{field}.tool_calls", calls)
            characters += length
        if "reasoning_content" in given and role != "assistant":
            raise invalid_request(
                f"{field}.reasoning_content",
                given["reasoning_content"],
                "reasoning in assistant messages alone",
            )
        for key in ("name", "tool_call_id", "refusal", "reasoning_content"):
            if key in given:
                if not isinstance(given[key], str):
                    raise invalid_request(f"{field}.{key}", given[key], "a string")
                clean[key] = checked_text(f"{field}.{key}", given[key])
                characters += len(clean[key])
        messages.append(clean)
    require_characters("messages", characters)
    return tuple(messages)
