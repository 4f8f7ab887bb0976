"""Refuses what of a conversation a chat template would leave out of the prompt."""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from mlflow.exceptions import MlflowException

from .invalid_request import invalid_request
from .special_texts import random_mark
from .template_capabilities import TemplateCapabilities

# system messages of one conversation that are looked for by rendering it once more without them
MAX_TRIED = 16
PLACE_DIGITS = 6  # a mark ends with the number of its message

SYSTEM_ROLES = ("system", "developer")
Render = Callable[[Sequence[Mapping[str, Any]]], str]


def require_supported(
    messages: Sequence[Mapping[str, Any]],
    tools: Sequence[Mapping[str, Any]],
    capabilities: TemplateCapabilities,
) -> None:
    """Refuse roles, tools and calls that the template cannot show.

    Raises:
        MlflowException: naming the message.
    """
    for index, message in enumerate(messages):
        field, role = f"messages[{index}].role", message["role"]
        if role in SYSTEM_ROLES and not capabilities.system_role:
            expected = (
                f"no {role} message, as this model's chat template leaves out the system role or"
                " refuses it"
            )
            cure = "put its text into the first user message"
            raise invalid_request(field, role, expected, cure)
    for index, message in enumerate(messages):
        field, role = f"messages[{index}].role", message["role"]
        if message.get("tool_calls") and capabilities.tool_calls is None:
            expected = "none, as this model's chat template leaves out tool calls"
            raise invalid_request(
                f"messages[{index}].tool_calls",
                message["tool_calls"],
                expected,
                "write them into the content",
            )
        if role == "tool" and not capabilities.tool_results:
            expected = (
                "another role, as this model's chat template leaves out tool results or refuses"
                " them"
            )
            raise invalid_request(field, role, expected, "put them into a user message")
    if tools and capabilities.tools is None:
        names = [tool["function"]["name"] for tool in tools]
        expected = "none, as this model's chat template has no tools"
        raise invalid_request("tools", names, expected, "describe them in a message")


def require_arrival(messages: Sequence[Mapping[str, Any]], render: Render) -> None:
    """Refuse a system message without which the prompt would be the same: templates were tried with
    one, in front of a question.

    Args:
        messages: of the conversation.
        render: makes the prompt of messages.

    Raises:
        MlflowException: naming the message.
    """
    places = [index for index, message in enumerate(messages) if message["role"] in SYSTEM_ROLES]
    if not places or (places == [0] and any(message["role"] == "user" for message in messages)):
        return
    missing = _not_seen(messages, places, render)
    whole = render(messages) if missing else ""
    for index in missing:
        others = [*messages[:index], *messages[index + 1 :]]
        try:
            needed = bool(others) and render(others) != whole
        except MlflowException:
            needed = True
        if not needed:
            role = messages[index]["role"]
            expected = (
                f"one {role} message, in front of a user's, as this model's chat template leaves"
                " this one out"
            )
            raise invalid_request(
                f"messages[{index}].role", role, expected, "join it with the first one"
            )


def _not_seen(
    messages: Sequence[Mapping[str, Any]], places: Sequence[int], render: Render
) -> list[int]:
    """Those of these messages whose place in the prompt is not seen when each of them holds a mark
    instead of its text: the text itself may stand in the prompt since another message quotes it.

    Each of them costs one rendering of the whole conversation, so their number is bounded.

    Raises:
        MlflowException: there are too many.
    """
    marked = [index for index in places if str(messages[index]["content"]).strip()]
    mark = random_mark()
    shaped = [dict(message) for message in messages]
    for index in marked:
        shaped[index]["content"] = f"{mark}{index:0{PLACE_DIGITS}}"
    try:
        prompt = render(shaped)
    except MlflowException:  # the template looks into these texts
        prompt = ""
    shown = set(map(int, re.findall(rf"{mark}(\d{{{PLACE_DIGITS}}})", prompt)))
    missing = [index for index in marked if index not in shown]
    if len(missing) > MAX_TRIED:
        index = missing[MAX_TRIED]
        role = messages[index]["role"]
        expected = (
            f"at most {MAX_TRIED} {role} messages, as this model's chat template does not show them"
            " as they are"
        )
        raise invalid_request(f"messages[{index}].role", role, expected, "join them into one")
    return missing
