"""How a model's chat template writes tool calls, and the grammar that holds an answer to them."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from mlflow.exceptions import MlflowException

from .call_bodies import Read, as_json
from .call_formats import READERS
from .conversation import Conversations
from .grammars import Grammar
from .invalid_request import invalid_request
from .lark_bounds import checked_lark
from .schema_bounds import GUIDANCE, bounded_schema
from .template_probe import USER
from .template_tools_probe import PARAMETER, PROBE_TOOL, TOOL_NAME, VALUE
from .tool_calls import OPENING, Offer, tool_calls_in

PROBE_ARGUMENTS = re.compile(rf'\{{\s*"{PARAMETER}"(\s*:\s*)"{VALUE}"\s*\}}')
JSON_BODY = re.compile(r"[\[{]")
# ids in calls: they are the server's to give, and models leave them out
CALL_IDS = re.compile(r',\s*"id"\s*:\s*"[^"]*"|(?<=\{)\s*"id"\s*:\s*"[^"]*"\s*,\s*')
PROBE_IDS = ("call_0123456789abcdef01234567", "call_0123456789abcdef01234568")


@dataclass(frozen=True)
class CallForm:
    """How calls are written: ``before`` a name, ``between`` it and the arguments, which are JSON,
    and ``after`` them.

    Attributes:
        before: the first name.
        between: a name and its arguments.
        after: the last arguments.
        join: what stands between arguments and the next name; None where an answer has one call.
        spaced: whether JSON is written with a space behind colons and commas.
    """

    before: str
    between: str
    after: str
    join: str | None
    spaced: bool

    @classmethod
    def of(cls, conversations: Conversations) -> "CallForm | None":
        """Find out how calls are written, by rendering some; None where their arguments are not
        JSON, or their text is not read as the calls that it was written for.
        """
        written = _written_calls(conversations, 1)
        if written is None:
            return None
        arguments = PROBE_ARGUMENTS.search(written)
        if arguments is None or written.count(TOOL_NAME) != 1:
            return None
        before, _, between = written[: arguments.start()].partition(TOOL_NAME)
        after, spaced = written[arguments.end() :], " " in arguments.group(1)
        form = cls(before, between, after, _join_of(conversations, before, between, after), spaced)
        return form if form.reads([TOOL_NAME]) else None

    def text(self, names: Sequence[str], arguments: str = "{}") -> str:
        """Calls of some tools, all with the same arguments."""
        calls = [f"{name}{self.between}{arguments}" for name in names]
        return f"{self.before}{(self.join or '').join(calls)}{self.after}"

    def reads(self, names: Sequence[str]) -> bool:
        """Whether calls of these tools are read as such."""
        _, calls = tool_calls_in(self.text(names), Offer(dict.fromkeys(names)))
        return [call["function"]["name"] for call in calls] == list(names)


def _calling_messages(count: int) -> list[list[dict[str, Any]]]:
    """A conversation that ends with calls, and with their results."""
    function = {"name": TOOL_NAME, "arguments": json.dumps({PARAMETER: VALUE})}
    ids = PROBE_IDS[:count]
    calls = [{"id": identity, "type": "function", "function": function} for identity in ids]
    calling: list[dict[str, Any]] = [
        dict(USER),
        {"role": "assistant", "content": "", "tool_calls": calls},
    ]
    results = [
        {"role": "tool", "tool_call_id": identity, "name": TOOL_NAME, "content": "1"}
        for identity in ids
    ]
    return [calling, [*calling, *results]]


def _written_calls(conversations: Conversations, count: int) -> str | None:
    """Text of so many calls of one tool; None where the template does not write them."""
    for messages in _calling_messages(count):
        try:
            text = CALL_IDS.sub("", conversations.render(messages, [PROBE_TOOL]))
        except MlflowException:
            continue
        places = [match.start() for match in re.finditer(VALUE, text)]
        regions = list(_call_regions(text, places[0])) if len(places) == count else []
        if not regions:
            continue
        start, end = regions[0]
        while end <= places[-1]:  # a call of its own each
            following = [region for region in _call_regions(text, places[-1]) if region[0] >= end]
            if not following:
                return None
            end = following[0][1]
        return text[start:end]
    return None


def _call_regions(text: str, place: int) -> Iterator[tuple[int, int]]:
    """Where calls begin and end that hold the argument at a place; those with a mark first."""
    for mark in OPENING.finditer(text, 0, place):
        yield from _region_of(READERS[mark.group()](text, mark.start()), mark.start(), place)
    for mark in JSON_BODY.finditer(text, 0, place):
        yield from _region_of(as_json(text, mark.start(), explicit=False), mark.start(), place)


def _region_of(read: Read, start: int, place: int) -> Iterator[tuple[int, int]]:
    if read is not None and start < place < read[1]:
        names = {call.name for call in read[0]}
        if names == {TOOL_NAME}:
            yield start, read[1]


def _join_of(conversations: Conversations, before: str, between: str, after: str) -> str | None:
    """What stands between two calls of one answer; None where a template writes one alone, or the
    second in another way.
    """
    shape = conversations.capabilities.tool_calls
    written = _written_calls(conversations, 2) if shape is not None and shape.parallel else None
    matches = list(PROBE_ARGUMENTS.finditer(written)) if written is not None else []
    if written is None or len(matches) != 2:
        return None
    first, second = matches
    head, name, tail = written[first.end() : second.start()].partition(TOOL_NAME)
    begins = written[: first.start()] == f"{before}{TOOL_NAME}{between}"
    fits = begins and name and tail == between and written[second.end() :] == after
    return head if fits else None


class ForcedCalls:
    """Makes grammars of forced tool calls.

    Args:
        conversations: of the model.
        special: ids of special tokens by their texts, which a grammar names by their ids.
    """

    def __init__(self, conversations: Conversations, special: Mapping[str, int]) -> None:
        self._conversations, self._special = conversations, special

    @cached_property
    def form(self) -> CallForm | None:
        """How calls are written, found out for the first request that forces some."""
        return CallForm.of(self._conversations)

    def grammar(
        self,
        tools: Sequence[Mapping[str, Any]],
        names: Sequence[str],
        *,
        several: bool,
        asked: Any,
    ) -> Grammar:
        """Hold an answer to calls, with arguments by the tools' schemas, and to nothing else.

        Args:
            tools: checked definitions that are offered.
            names: of the tools that may be called.
            several: whether it may be more than one call.
            asked: the request's ``tool_choice``.

        Raises:
            MlflowException: this model's calls cannot be forced, or a tool's name or schema cannot
                stand in them.
        """
        form = self.form
        if form is None:
            raise invalid_request(
                "tool_choice",
                asked,
                "'auto' or 'none', as this model's way of writing calls cannot be forced",
                "ask for the arguments with response_format",
            )
        schemas: list[tuple[str, dict[str, Any]]] = []
        cheap = True
        for index, tool in enumerate(tools):
            function = tool["function"]
            name, field = function["name"], f"tools[{index}].function"
            if name not in names:
                continue
            if not form.reads([name]):
                raise invalid_request(
                    f"{field}.name", name, "letters, digits, _ and - where calls are forced"
                )
            schema = _arguments_schema(f"{field}.parameters", function.get("parameters"))
            cheap = bounded_schema(f"{field}.parameters", schema) and cheap
            schemas.append((name, schema))
        # all of them together are held to what one grammar may hold
        checked_lark("tools", self._lark(form, schemas, several=several, guidance=None))
        guidance: dict[str, Any] = {"whitespace_flexible": False}
        if form.spaced:
            guidance |= {"item_separator": ", ", "key_separator": ": "}
        text = self._lark(form, schemas, several=several, guidance=guidance)
        return Grammar("lark_grammar", text, cheap and len(schemas) == 1, "tools")

    def _lark(
        self,
        form: CallForm,
        schemas: Sequence[tuple[str, dict[str, Any]]],
        *,
        several: bool,
        guidance: dict[str, Any] | None,
    ) -> str:
        again = f" ({self._literal(form.join)} call)*" if several and form.join is not None else ""
        rules = [
            f"start: {self._literal(form.before)} call{again} {self._literal(form.after)}".rstrip(),
            f"call: {' | '.join(f'call_{number}' for number in range(len(schemas)))}",
        ]
        for number, (name, schema) in enumerate(schemas):
            held = schema if guidance is None else {**schema, GUIDANCE: guidance}
            rules += [
                f"call_{number}: {self._literal(name + form.between)} arguments_{number}",
                f"arguments_{number}: %json {json.dumps(held)}",
            ]
        return "\n".join(rules)

    def _literal(self, text: str) -> str:
        """A text in a grammar: special tokens by their ids, as no text spells them."""
        inside = [special for special in self._special if special and special in text]
        if not inside:
            return json.dumps(text, ensure_ascii=False) if text else ""
        cut = re.compile(f"({'|'.join(map(re.escape, sorted(inside, key=len, reverse=True)))})")
        parts = (
            f"<[{self._special[part]}]>"
            if part in self._special
            else json.dumps(part, ensure_ascii=False)
            for part in cut.split(text)
            if part
        )
        return " ".join(parts)


def _arguments_schema(field: str, schema: Any) -> dict[str, Any]:
    """The schema of a tool's arguments, which are an object."""
    if schema is None:
        return {"type": "object", "properties": {}, "additionalProperties": False}
    if not isinstance(schema, Mapping) or schema.get("type", "object") != "object":
        raise invalid_request(field, schema, "a JSON schema of an object where calls are forced")
    return {**schema, "type": "object"}
