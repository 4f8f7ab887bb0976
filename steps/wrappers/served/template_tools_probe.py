"""Tries how tool definitions, tool calls and their results reach a chat template's text."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from .template import DEFAULT, TOOL_USE
from .template_probe import ASKED, RESULT, SAID, SYSTEM, USER, TemplateProbe
from .template_tools import CALL_MARKS, CallShape, ToolPlace

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
# by shape of a call's id, an id that only a template which takes this shape takes
ID_SHAPES = {
    "any": "1",
    "long": "call_0123456789abcdef01234567",
    "nine": "abcdefgh1",
    "function": f"functions.{TOOL_NAME}:0",
}


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


def probe_tools(probe: TemplateProbe, *, system_role: bool) -> ToolsOfTemplate:
    """Find out what a template does with tools."""
    place = next(
        (place for place in _places(probe) if _carries(probe, place, system_role=system_role)), None
    )
    best: tuple[CallShape, bool, bool] | None = None
    for shape, named in _shapes():
        called, answered = _arrives(probe, place, shape, named=named)
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
        _with_limits(probe, place, _argument_form(probe, place, shape, named=named), named=named),
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


def _calling(content: str | None, calls: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    return [USER, {"role": "assistant", "content": content, "tool_calls": list(calls)}]


def _render(
    probe: TemplateProbe, place: ToolPlace | None, messages: Sequence[Mapping[str, Any]]
) -> str | None:
    placed, variables = place.put(messages, [PROBE_TOOL]) if place else (list(messages), {})
    return probe.text(placed, variables, name=place.template if place else DEFAULT)


def _arrives(
    probe: TemplateProbe, place: ToolPlace | None, shape: CallShape, *, named: bool
) -> tuple[bool, bool]:
    """Whether a call arrives, and its result."""
    calling = _calling(shape.empty, [_call(shape)])
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
    calling = _calling(shape.empty, [_call(shape)])
    if repr({PARAMETER: VALUE}) not in (_render(probe, place, calling) or ""):
        return shape
    textual = replace(shape, arguments="text")
    return textual if _arrives(probe, place, textual, named=named)[0] else shape


def _with_limits(
    probe: TemplateProbe, place: ToolPlace | None, shape: CallShape, *, named: bool
) -> CallShape:
    """The shape with what a message may hold beside a call: text, and another call."""
    speaking = _calling(SAID, [_call(shape)])
    calls = [_call(shape, number) for number in range(2)]
    results = [_result(call["id"], named=named) for call in calls]
    text = _render(probe, place, [*_calling(shape.empty, calls), *results])
    return replace(
        shape,
        beside_text=probe.holds([SAID, VALUE], _render(probe, place, speaking)),
        parallel=text is not None and text.count(VALUE) >= 2,
    )


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
