"""Refuses what of a conversation a chat template would leave out of the prompt."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from mlflow.exceptions import MlflowException

from .invalid_request import invalid_request
from .template_capabilities import TemplateCapabilities

# system messages of one conversation that are looked for by rendering it once more without them
MAX_TRIED = 16

SYSTEM_ROLES = ("system", "developer")


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


def require_arrival(
    messages: Sequence[Mapping[str, Any]], render: Callable[[Sequence[Mapping[str, Any]]], str]
) -> None:
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
    whole = render(messages)
    for index in _not_seen(messages, places, whole):
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
    messages: Sequence[Mapping[str, Any]], places: Sequence[int], rendered: str
) -> list[int]:
    """Those of these messages whose text does not stand in the prompt as it was sent.

    Each of them costs one rendering of the whole conversation, so their number is bounded.

    Raises:
        MlflowException: there are too many.
    """
    missing: list[int] = []
    start, repeated = 0, 0  # nearly every template keeps the order, so the prompt is read once
    for index in places:
        text = str(messages[index]["content"]).strip()
        position = rendered.find(text, start)
        if not text or position >= 0:
            start = max(start, position + len(text))
            continue
        repeated += 1
        if repeated > MAX_TRIED:
            role = messages[index]["role"]
            expected = (
                f"at most {MAX_TRIED} {role} messages, as this model's chat template does not show"
                " them in their order and as they are"
            )
            raise invalid_request(f"messages[{index}].role", role, expected, "join them into one")
        if text not in rendered:
            missing.append(index)
    return missing
