"""Tool calls in an answer: told from what is said beside them, for offered tools alone, whole or as
the answer is streamed.
"""

import json
import re
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from .call_bodies import DECODER, WrittenCall, bare_calls
from .call_formats import MARKS, READERS
from .reasoning import longest_held
from .template_tools import CallShape, call_id

OPENING = re.compile("|".join(re.escape(mark) for mark in sorted(READERS, key=len, reverse=True)))


@dataclass(frozen=True)
class Offer:
    """The tools that an answer may call.

    Args:
        schemas: JSON schema of each tool's arguments, by name; empty where none is offered.
        shape: of calls that the template takes back.
        earlier: calls in the conversation so far.
        kept: texts of special tokens that the decoder shows because they may mark calls; they are
            not content.
        several: whether it may call more than one; all but the first are left out otherwise.
    """

    schemas: Mapping[str, Any] = field(default_factory=dict)
    shape: CallShape | None = None
    earlier: int = 0
    kept: frozenset[str] = frozenset()
    several: bool = True


def tool_calls_in(text: str, offer: Offer) -> tuple[str, list[dict[str, Any]]]:
    """Read tool calls out of an answer, in any of the ways that models write them.

    Args:
        text: the whole answer, without its reasoning.
        offer: tools that may be called.

    Returns:
        What was said beside the calls, and the calls. What is malformed, names a tool that was
        not offered, or has arguments that are not an object stays text.
    """
    if not offer.schemas:
        return text, []
    spoken: list[str] = []
    functions: list[dict[str, Any]] = []
    at = 0
    for start, end, written in _regions(text, offer):
        spoken.append(text[at:start])
        functions += written
        at = end
    if not functions:
        functions = _functions(bare_calls(text), offer)
        at = len(text) if functions else 0
    said = "".join([*spoken, text[at:]])
    for mark in offer.kept:
        said = said.replace(mark, "")
    if not functions:
        return said, []
    said = said.rstrip() if spoken and spoken[0].strip() else said.strip()
    calls = [
        {
            "id": call_id(offer.shape, uuid.uuid4().hex, function["name"], offer.earlier + number),
            "type": "function",
            "function": function,
        }
        for number, function in enumerate(functions if offer.several else functions[:1])
    ]
    return said, calls


def _regions(text: str, offer: Offer) -> Iterator[tuple[int, int, list[dict[str, Any]]]]:
    """Where marked calls stand, none over another."""
    position = 0
    while mark := OPENING.search(text, position):
        position = mark.end()
        read = READERS[mark.group()](text, mark.start())
        if read is None:
            continue
        position = read[1]
        functions = _functions(read[0], offer)
        if functions:
            yield mark.start(), position, functions


def _functions(calls: Sequence[WrittenCall], offer: Offer) -> list[dict[str, Any]]:
    """Calls as OpenAI shapes them; none where one of them cannot be made."""
    made: list[dict[str, Any]] = []
    for call in calls:
        arguments = _arguments(call, offer)
        if arguments is None:
            return []
        made.append({"name": call.name, "arguments": arguments})
    return made


def _arguments(call: WrittenCall, offer: Offer) -> str | None:
    """A call's arguments as JSON; None where they are not an object of an offered tool."""
    given = call.arguments
    if call.name not in offer.schemas:
        return None
    if isinstance(given, str):
        try:
            return given if isinstance(DECODER.decode(given), dict) else None
        except (ValueError, RecursionError):
            return None
    if not isinstance(given, dict):
        return None
    if call.textual:
        properties = (offer.schemas[call.name] or {}).get("properties") or {}
        given = {key: _typed(value, properties.get(key)) for key, value in given.items()}
    return json.dumps(given)


def _typed(text: str, schema: Any) -> Any:
    """A value that came as bare text: what its schema says it is, where that can be read."""
    kind = schema.get("type") if isinstance(schema, Mapping) else "string"
    if kind in (None, "string") or (isinstance(kind, list) and "string" in kind):
        return text
    try:
        return DECODER.decode(text.strip())
    except (ValueError, RecursionError):
        return {"True": True, "False": False, "None": None}.get(text.strip(), text)


class CallWatch:
    """Lets the content of a streamed answer through up to where a tool call may begin.

    Args:
        offer: tools that may be called.
    """

    def __init__(self, offer: Offer) -> None:
        self._offer = offer
        self._text = ""
        self._shown = 0
        self._begun = False  # whether there is more than white space
        self._closed = False  # a mark was seen: the rest can only be told at the end
        self._marks = tuple({*READERS, *MARKS, *offer.kept})
        self._mark = re.compile(
            "|".join(re.escape(mark) for mark in sorted(self._marks, key=len, reverse=True))
        )

    def take(self, text: str) -> str:
        """Take more content; return what cannot be part of a call."""
        if not self._offer.schemas:
            return text
        self._text += text
        if not self._begun:
            first = self._text.lstrip()[:1]
            self._begun, self._closed = bool(first), first in ("{", "[")
        if self._closed or not self._begun:
            return ""
        mark = self._mark.search(self._text, self._shown)
        self._closed = mark is not None
        end = (
            mark.start()
            if mark
            else len(self._text) - longest_held(self._text[self._shown :], self._marks)
        )
        certain = self._text[self._shown : end].rstrip()
        self._shown += len(certain)
        return certain

    def finish(self) -> tuple[str, list[dict[str, Any]]]:
        """End the answer: the rest of its content, and its calls."""
        if not self._offer.schemas:
            return "", []
        said, calls = tool_calls_in(self._text, self._offer)
        return said[self._shown :], calls
