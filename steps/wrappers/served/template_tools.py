"""How tool definitions and tool calls are given to a chat template."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .template import DEFAULT

# regular expressions of ids of calls by their shape, from the least demanding to the most
ID_FORMS = {
    "any": r".*",
    "long": r"[A-Za-z0-9_-]{9,}",
    "nine": r"[A-Za-z0-9]{9}",
    "function": r"functions\.[^:]+:\d+",
}
# how calls are written into a message's content where the template drops them: before each, after
# each, before all, after all
CALL_MARKS = (
    ("<tool_call>\n", "\n</tool_call>", "", ""),
    ("", "", "<|tool_call|>[", "]<|/tool_call|>"),
    ("", "", "[TOOL_CALLS][", "]"),
)


@dataclass(frozen=True)
class ToolPlace:
    """The way by which tool definitions reach the prompt.

    Attributes:
        where: ``variable``, or ``system`` for a key of the system message.
        name: of the variable or key.
        template: name of the template that is used then.
        text: they are given as JSON text instead of a list.
        needs_system: without a system message they are lost, so that an empty one is put in front.
    """

    where: str
    name: str
    template: str = DEFAULT
    text: bool = False
    needs_system: bool = False

    def given(self, tools: Sequence[Mapping[str, Any]]) -> Any:
        """Tool definitions as the template wants them."""
        if not self.text:
            return list(tools)
        return json_text([tool["function"] if self.where == "system" else tool for tool in tools])

    def put(
        self, messages: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]]
    ) -> tuple[list[Mapping[str, Any]], dict[str, Any]]:
        """Messages and variables that carry tools."""
        placed = list(messages)
        if (self.needs_system or self.where == "system") and (
            not placed or placed[0].get("role") != "system"
        ):
            placed.insert(0, {"role": "system", "content": ""})
        if self.where == "system":
            placed[0] = {**placed[0], self.name: self.given(tools)}
            return placed, {}
        return placed, {self.name: self.given(tools)}


@dataclass(frozen=True)
class CallShape:
    """How an assistant's tool calls are given to the template.

    Attributes:
        arguments: ``mapping`` or ``text`` (JSON), or ``content``: the template drops calls, so they
            are written into the content.
        ids: a key of ``ID_FORMS``: what an id must look like.
        empty: content of a message that only calls: an empty text, or None.
        beside_text: a message may have content and calls; otherwise the template leaves one of them
            out.
        parallel: a message may have several calls; otherwise it is given as several, each followed
            by its result.
        marks: for ``content``: an entry of ``CALL_MARKS``.
    """

    arguments: str = "mapping"
    ids: str = "any"
    empty: str | None = ""
    beside_text: bool = True
    parallel: bool = True
    marks: tuple[str, str, str, str] | None = None


def call_id(shape: CallShape | None, seed: str, name: str, number: int) -> str:
    """An id that the template takes; the same for the same seed.

    Args:
        shape: of the calls.
        seed: any text.
        name: of the function.
        number: of the call in the conversation.
    """
    digest = hashlib.sha256(seed.encode()).hexdigest()
    kind = shape.ids if shape else "any"
    return {"nine": digest[:9], "function": f"functions.{name}:{number}"}.get(
        kind, f"call_{digest[:24]}"
    )


def written_calls(marks: Sequence[str], calls: Sequence[tuple[str, Any]]) -> str:
    """Calls, by name and arguments, as a model writes them itself."""
    before, after, before_all, after_all = marks
    bodies = [
        f'{{"name": {json_text(name)}, "arguments": {json_text(arguments)}}}'
        for name, arguments in calls
    ]
    return (
        before_all
        + (", " if before_all else "\n").join(f"{before}{body}{after}" for body in bodies)
        + after_all
    )


def json_text(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
