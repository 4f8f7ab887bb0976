"""How tool definitions, tool calls and their results reach a chat template's text: found by
trying.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .template import DEFAULT, TOOL_USE
from .template_probe import ASKED, RESULT, SAID, SYSTEM, USER, TemplateProbe

TOOL_NAME, TOOL_SAYS, PARAMETER, VALUE = (
    "probe_tool_0",
    "0probedescription0",
    "probe_parameter_0",
    "0probevalue0",
)
PROBE_TOOL = {
    "type": "function",
    "function": {
        "name": TOOL_NAME,
        "description": TOOL_SAYS,
        "parameters": {
            "type": "object",
            "properties": {PARAMETER: {"type": "string", "description": "a"}},
            "required": [PARAMETER],
        },
    },
}
# shape of a call's id, with an id that only a template which takes this shape takes; from the least
# demanding to the most
ID_SHAPES = {
    "any": "1",
    "long": "call_0123456789abcdef01234567",
    "nine": "abcdefgh1",
    "function": f"functions.{TOOL_NAME}:0",
}
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
        return _json_text([tool["function"] if self.where == "system" else tool for tool in tools])

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
        ids: a key of ``ID_SHAPES``: what an id must look like.
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


@dataclass(frozen=True)
class ToolsOfTemplate:
    """What a template does with tools.

    Attributes:
        place: of definitions; None where they do not arrive.
        calls: None where an assistant's calls cannot be given back.
        results: a message of role ``tool`` arrives.
        named_results: such a message needs the ``name`` of its tool.
    """

    place: ToolPlace | None
    calls: CallShape | None
    results: bool
    named_results: bool


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
        f'{{"name": {_json_text(name)}, "arguments": {_json_text(arguments)}}}'
        for name, arguments in calls
    ]
    return (
        before_all
        + (", " if before_all else "\n").join(f"{before}{body}{after}" for body in bodies)
        + after_all
    )


def _json_text(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def tools_found(probe: TemplateProbe, *, system_role: bool) -> ToolsOfTemplate:
    """Find out what a template does with tools."""
    place = next(
        (place for place in _places(probe) if _carries(probe, place, system_role=system_role)), None
    )
    best: tuple[CallShape, bool, bool] | None = None
    for shape, named in _shapes():
        called, answered = _try(probe, place, shape, named=named)
        if called and (best is None or (answered and not best[1])):
            best = shape, answered, named
        if best and best[1]:
            break
    if best is None:
        written = CallShape("content", marks=_marks(probe, place)) if place else None
        said = [USER, {"role": "assistant", "content": SAID}]
        plain = [(named, probe.text([*said, _result("1", named=named)])) for named in (False, True)]
        arrived = [named for named, text in plain if probe.holds([ASKED, RESULT], text)]
        return ToolsOfTemplate(place, written, bool(arrived), bool(arrived) and arrived[0])
    shape, answered, named = best
    return ToolsOfTemplate(
        place,
        _limits(probe, place, _argument_form(probe, place, shape, named=named), named=named),
        answered,
        named,
    )


def _places(probe: TemplateProbe) -> Iterator[ToolPlace]:
    for template in (TOOL_USE, DEFAULT):
        if template in probe.template.sources:
            read = [
                name
                for name in probe.template.variables(template)
                if name.endswith(("tools", "functions"))
            ]
            names = dict.fromkeys(["tools", *read])
            for needs_system in (False, True):
                for text in (False, True):
                    yield from (
                        ToolPlace("variable", name, template, text, needs_system) for name in names
                    )
    yield from (ToolPlace("system", "tools", DEFAULT, text) for text in (True, False))


def _carries(probe: TemplateProbe, place: ToolPlace, *, system_role: bool) -> bool:
    system = {"role": "system", "content": SYSTEM}
    for messages in [[USER], *([[system, USER]] if system_role else [])]:
        placed, variables = place.put(messages, [PROBE_TOOL])
        text = probe.text(placed, variables, name=place.template)
        if not probe.holds([ASKED, TOOL_NAME, TOOL_SAYS, PARAMETER], text):
            return False
    return True


def _shapes() -> Iterator[tuple[CallShape, bool]]:
    for named in (False, True):
        for arguments in ("mapping", "text"):
            for empty in ("", None):
                yield from ((CallShape(arguments, ids, empty), named) for ids in ID_SHAPES)


def _call(shape: CallShape, number: int = 0) -> dict[str, Any]:
    arguments = {PARAMETER: VALUE}
    given = json.dumps(arguments) if shape.arguments == "text" else arguments
    identity = ID_SHAPES[shape.ids]
    return {
        "id": identity[:-1] + str((int(identity[-1]) + number) % 10),
        "type": "function",
        "function": {"name": TOOL_NAME, "arguments": given},
    }


def _result(identity: str, *, named: bool) -> dict[str, Any]:
    return {
        "role": "tool",
        "tool_call_id": identity,
        "content": RESULT,
        **({"name": TOOL_NAME} if named else {}),
    }


def _render(
    probe: TemplateProbe, place: ToolPlace | None, messages: Sequence[Mapping[str, Any]]
) -> str | None:
    placed, variables = place.put(messages, [PROBE_TOOL]) if place else (list(messages), {})
    return probe.text(placed, variables, name=place.template if place else DEFAULT)


def _try(
    probe: TemplateProbe, place: ToolPlace | None, shape: CallShape, *, named: bool
) -> tuple[bool, bool]:
    """Whether a call arrives, and its result."""
    calling: list[Mapping[str, Any]] = [
        USER,
        {"role": "assistant", "content": shape.empty, "tool_calls": [_call(shape)]},
    ]
    definitions = _render(probe, place, [USER]) or ""  # which hold the same names
    for messages in ([*calling, _result(ID_SHAPES[shape.ids], named=named)], calling):
        text = _render(probe, place, messages)
        if (
            text is not None
            and VALUE in text
            and all(text.count(word) > definitions.count(word) for word in (TOOL_NAME, PARAMETER))
        ):
            return True, RESULT in text
    return False, False


def _argument_form(
    probe: TemplateProbe, place: ToolPlace | None, shape: CallShape, *, named: bool
) -> CallShape:
    """Arguments as JSON text where the template prints what it is given: a mapping would come out
    as Python writes it.
    """
    if shape.arguments != "mapping":
        return shape
    calling: list[Mapping[str, Any]] = [
        USER,
        {"role": "assistant", "content": shape.empty, "tool_calls": [_call(shape)]},
    ]
    if repr({PARAMETER: VALUE}) not in (_render(probe, place, calling) or ""):
        return shape
    textual = CallShape("text", shape.ids, shape.empty)
    return textual if _try(probe, place, textual, named=named)[0] else shape


def _limits(
    probe: TemplateProbe, place: ToolPlace | None, shape: CallShape, *, named: bool
) -> CallShape:
    speaking: list[Mapping[str, Any]] = [
        USER,
        {"role": "assistant", "content": SAID, "tool_calls": [_call(shape)]},
    ]
    beside = probe.holds([SAID, VALUE], _render(probe, place, speaking))
    calls = [_call(shape, number) for number in range(2)]
    several: list[Mapping[str, Any]] = [
        USER,
        {"role": "assistant", "content": shape.empty, "tool_calls": calls},
    ]
    several += [_result(call["id"], named=named) for call in calls]
    text = _render(probe, place, several)
    parallel = text is not None and text.count(VALUE) >= 2
    return CallShape(shape.arguments, shape.ids, shape.empty, beside, parallel)


def _marks(probe: TemplateProbe, place: ToolPlace) -> tuple[str, str, str, str]:
    """Marks that the prompt with tools speaks of, else such as the tokenizer has as tokens."""
    told = _render(probe, place, [USER]) or ""
    openings = {(marks[0] or marks[2]).rstrip("[\n"): marks for marks in CALL_MARKS}
    spoken = [mark for mark in openings if mark in told]
    return openings[
        next(
            iter([*spoken, *(mark for mark in openings if mark in probe.template.added)]),
            "<tool_call>",
        )
    ]
