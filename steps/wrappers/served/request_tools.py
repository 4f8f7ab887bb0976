"""Tools of a request, and which of them an answer must call."""

from collections.abc import Mapping
from typing import Any

from .invalid_request import checked_texts, invalid_request, require_characters, require_count

MAX_TOOLS = 512


def checked_tools(value: Any, choice: Any) -> tuple[dict[str, Any], ...]:
    """Check the tools a request offers, as function definitions with a JSON schema each.

    Raises:
        MlflowException: naming the tool.
    """
    if value is None or value == []:
        return ()
    if not isinstance(value, list):
        raise invalid_request("tools", value, "a list of function definitions")
    require_count("tools", value, MAX_TOOLS, "tools")
    for index, tool in enumerate(value):
        function = tool.get("function") if isinstance(tool, Mapping) else None
        if (
            not isinstance(function, Mapping)
            or tool.get("type", "function") != "function"
            or not isinstance(function.get("name"), str)
        ):
            raise invalid_request(
                f"tools[{index}]",
                tool,
                "{'type': 'function', 'function': {'name': …, 'parameters': {…}}}",
            )
    require_characters("tools", checked_texts("tools", value))
    return () if choice == "none" else tuple(dict(tool) for tool in value)


def forced_tools(choice: Any, tools: tuple[dict[str, Any], ...]) -> tuple[str, ...]:
    """Read ``tool_choice``: names of the tools of which the answer must call one; none where it
    need not call any.

    Args:
        choice: as the request has it.
        tools: that are offered.

    Raises:
        MlflowException: a choice that is none, or of a tool that is not offered.
    """
    if choice is None or choice in ("auto", "none"):
        return ()
    offered = tuple(dict.fromkeys(str(tool["function"]["name"]) for tool in tools))
    if choice == "required":
        if not offered:
            raise invalid_request("tool_choice", choice, "'none' or 'auto' without tools")
        return offered
    function = choice.get("function") if isinstance(choice, Mapping) else None
    name = function.get("name") if isinstance(function, Mapping) else None
    if not isinstance(choice, Mapping) or choice.get("type") != "function" or name is None:
        raise invalid_request(
            "tool_choice",
            choice,
            "'auto', 'none', 'required' or {'type': 'function', 'function': {'name': …}}",
        )
    if name not in offered:
        raise invalid_request(
            "tool_choice.function.name", name, f"one of the offered tools, {list(offered)}"
        )
    return (str(name),)
