"""Conversations as a checkpoint's chat template takes them: roles, tools, calls and reasoning put
where they arrive, or refused.
"""

import contextlib
import json
import re
import secrets
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mlflow.exceptions import MlflowException

from .invalid_request import invalid_request
from .limits import CAPABILITIES, read_json
from .template import ChatTemplate
from .template_capabilities import TemplateCapabilities
from .template_tools import ID_FORMS, call_id, written_calls

BLANK = (
    "\ue000"  # a character of the private use area: it stands for what is left out in a comparison
)
# random, so that no request can hold it; digits alone pass unchanged through what templates do to
# text
MARK_DIGITS = 40
# system messages of one conversation that are looked for by rendering it once more without them
MAX_TRIED = 16

Messages = Sequence[Mapping[str, Any]]


class Conversations:
    """Renders conversations in the shape that a template was found to take.

    Args:
        template: of the checkpoint.
        capabilities: what was found of it.
    """

    def __init__(
        self, template: ChatTemplate, capabilities: TemplateCapabilities | None = None
    ) -> None:
        self.template = template
        self.capabilities = (
            TemplateCapabilities.found(template) if capabilities is None else capabilities
        )
        self._guarded = sorted(
            {*template.special_texts, *self.capabilities.structure} - {""}, key=len, reverse=True
        )

    @classmethod
    def of_folder(cls, folder: Path) -> "Conversations":
        """Read a folder's template, with what was found of it when it was logged; where nothing
        was, it is tried now.
        """
        template = ChatTemplate(folder)
        try:
            return cls(
                template,
                TemplateCapabilities.from_json(read_json(folder / CAPABILITIES)["template"]),
            )
        except (AttributeError, KeyError, TypeError, ValueError):
            # there is none, or another version of this code wrote it
            return cls(template)

    def render(
        self, messages: Messages, tools: Messages = (), variables: Mapping[str, Any] | None = None
    ) -> str:
        """Render a conversation, ending where the assistant's answer begins.

        Args:
            messages: checked, as OpenAI shapes them.
            tools: definitions of functions.
            variables: what else the template is given.

        Raises:
            MlflowException: the template refuses the conversation, or a part of it would not arrive
                in the prompt.
        """
        self._check(messages, tools)
        self._require_arrival(messages, tools, variables or {})
        return self._rendered(
            [_with_arguments(message) for message in messages], list(tools), dict(variables or {})
        )

    def segments(
        self, messages: Messages, tools: Messages = (), variables: Mapping[str, Any] | None = None
    ) -> list[str]:
        """Render with text of the request that spells structure cut apart: special tokens, and
        others that the template writes.

        The joined segments are the rendered text; encoded one by one, no such text that came from a
        request is whole in any of them, so that it can only be read as plain text. Looked at is
        what the template will see: a tool call's arguments are JSON, in which the text may have
        been written with escapes.

        Raises:
            MlflowException: as ``render``.
        """
        self._check(messages, tools)
        self._require_arrival(messages, tools, variables or {})
        given: tuple[list[dict[str, Any]], list[Any], dict[str, Any]]
        given = (
            [_with_arguments(message) for message in messages],
            list(tools),
            dict(variables or {}),
        )
        if any(guarded in text for text in _texts(list(given)) for guarded in self._guarded):
            segments = self._cut(given, self._guarded)
        else:
            segments = [self._rendered(*given)]
        firsts = tuple({guarded[0] for guarded in self._guarded})
        if not any(first in text for text in _texts(list(given)) for first in firsts):
            return segments
        # a template that takes something out of a text may make such a token of what is left: then
        # every first character is cut off
        blank = [self._blank_message(message, firsts) for message in given[0]]
        if self._count(segments) > self._count(
            [self._rendered(blank, *_replaced(given[1:], firsts, BLANK))]
        ):
            return self._cut(given, firsts)
        return segments

    def _blank_message(self, message: Mapping[str, Any], firsts: Sequence[str]) -> dict[str, Any]:
        """A message in which no text can spell structure, but for the tags of reasoning in an
        assistant's content.
        """
        blank = dict(_replaced(dict(message), firsts, BLANK))
        thinking = self.capabilities.thinking
        if message["role"] == "assistant" and thinking and thinking.opening and thinking.closing:
            for tag in (thinking.opening, thinking.closing):
                blank["content"] = str(blank["content"]).replace(_replaced(tag, firsts, BLANK), tag)
        return blank

    def _cut(
        self,
        given: "tuple[list[dict[str, Any]], list[Any], dict[str, Any]]",
        specials: Sequence[str],
    ) -> list[str]:
        """Render with these texts of the request cut after their first character."""
        mark = str(secrets.randbelow(10**MARK_DIGITS)).zfill(MARK_DIGITS)
        marked = [self._marked_message(message, specials, mark) for message in given[0]]
        rendered = self._rendered(marked, *(_marked(part, specials, mark) for part in given[1:]))
        return [segment for segment in rendered.split(mark) if segment]

    def _count(self, segments: Sequence[str]) -> int:
        return sum(segment.count(guarded) for segment in segments for guarded in self._guarded)

    def opens_reasoning(self, end: str) -> bool:
        """Whether a prompt that ends like this has opened the reasoning already."""
        thinking = self.capabilities.thinking
        return bool(thinking and thinking.opening and end.rstrip().endswith(thinking.opening))

    def _check(self, messages: Messages, tools: Messages) -> None:
        found = self.capabilities
        if not self.template.sources:
            return  # rendering says so
        if not found.system_role:
            for index, message in enumerate(messages):
                if message["role"] in ("system", "developer"):
                    expected = (
                        f"no {message['role']} message, as this model's chat template leaves out"
                        " the system role or refuses it"
                    )
                    raise invalid_request(
                        f"messages[{index}].role",
                        message["role"],
                        expected,
                        "put its text into the first user message",
                    )
        for index, message in enumerate(messages):
            if message.get("tool_calls") and found.tool_calls is None:
                expected = "none, as this model's chat template leaves out tool calls"
                raise invalid_request(
                    f"messages[{index}].tool_calls",
                    message["tool_calls"],
                    expected,
                    "write them into the content",
                )
            if message["role"] == "tool" and not found.tool_results:
                expected = (
                    "another role, as this model's chat template leaves out tool results or refuses"
                    " them"
                )
                raise invalid_request(
                    f"messages[{index}].role", "tool", expected, "put them into a user message"
                )
        if tools and found.tools is None:
            names = [tool["function"]["name"] for tool in tools]
            raise invalid_request(
                "tools",
                names,
                "none, as this model's chat template has no tools",
                "describe them in a message",
            )

    def _require_arrival(
        self, messages: Messages, tools: Messages, variables: Mapping[str, Any]
    ) -> None:
        """Refuse a system message without which the prompt would be the same: templates were tried
        with one, in front of a question.
        """
        places = [
            index
            for index, message in enumerate(messages)
            if message["role"] in ("system", "developer")
        ]
        if not places or (places == [0] and any(message["role"] == "user" for message in messages)):
            return
        whole = self._rendered(
            [_with_arguments(message) for message in messages], list(tools), variables
        )
        for index in self._not_seen(messages, places, whole):
            others = [
                _with_arguments(message)
                for number, message in enumerate(messages)
                if number != index
            ]
            try:
                same = bool(others) and self._rendered(others, list(tools), variables) == whole
            except MlflowException:
                continue  # it cannot be done without, so it is not left out
            if same or not others:
                role = messages[index]["role"]
                expected = (
                    f"one {role} message, in front of a user's, as this model's chat template"
                    " leaves this one out"
                )
                raise invalid_request(
                    f"messages[{index}].role", role, expected, "join it with the first one"
                )

    def _not_seen(self, messages: Messages, places: Sequence[int], rendered: str) -> list[int]:
        """Those of these messages whose text does not stand in the prompt as it was sent.

        Each of them costs one rendering of the whole conversation, so their number is bounded.

        Raises:
            MlflowException: there are too many.
        """
        missing: list[int] = []
        start, repeated = 0, 0  # nearly every template keeps the order, so the prompt is read once
        for index in places:
            text = str(messages[index]["content"]).strip()
            found = rendered.find(text, start)
            if not text or found >= 0:
                start = max(start, found + len(text))
                continue
            repeated += 1
            if repeated > MAX_TRIED:
                role = messages[index]["role"]
                expected = (
                    f"at most {MAX_TRIED} {role} messages, as this model's chat template does not"
                    " show them in their order and as they are"
                )
                raise invalid_request(
                    f"messages[{index}].role", role, expected, "join them into one"
                )
            if text not in rendered:
                missing.append(index)
        return missing

    def _rendered(self, messages: Messages, tools: Messages, variables: Mapping[str, Any]) -> str:
        shaped: Messages = [self._shaped(message) for message in self._calling(messages)]
        if not tools:
            return self.template.render(shaped, variables)
        place = self.capabilities.tools
        assert place is not None
        placed, given = place.put(shaped, tools)
        text = self.template.render(placed, {**variables, **given}, name=place.template)
        if text == self._without_tools(shaped, variables):
            names = [tool["function"]["name"] for tool in tools]
            expected = "a conversation in which this model's chat template shows tools"
            raise invalid_request(
                "tools", names, expected, "it leaves them out here; describe them in a message"
            )
        return text

    def _without_tools(self, shaped: Messages, variables: Mapping[str, Any]) -> str | None:
        try:
            return self.template.render(shaped, variables, name=self.template.name_for(True))
        except MlflowException:  # surely this template reads tools
            return None

    def _shaped(self, message: Mapping[str, Any]) -> dict[str, Any]:
        found, shaped = self.capabilities, dict(message)
        if shaped["role"] == "developer" and not found.developer_role:
            shaped["role"] = "system"  # OpenAI's newer name for it, which few templates know
        if "reasoning_content" in shaped and found.thinking and found.thinking.field:
            shaped[found.thinking.field] = shaped["reasoning_content"]
        if found.content_parts:
            shaped["content"] = [{"type": "text", "text": shaped["content"] or ""}]
        return shaped

    def _marked_message(
        self, message: Mapping[str, Any], specials: Sequence[str], mark: str
    ) -> dict[str, Any]:
        """Mark a message; tags of reasoning in an assistant's content stay whole, for the template
        to cut it out.
        """
        marked: dict[str, Any] = {
            key: _marked(value, specials, mark) for key, value in message.items()
        }
        thinking = self.capabilities.thinking
        if message["role"] == "assistant" and thinking and thinking.opening and thinking.closing:
            content = str(marked["content"])
            opening, closing = (
                str(_marked(tag, specials, mark)) for tag in (thinking.opening, thinking.closing)
            )
            if content.lstrip().startswith(opening):
                content = content.replace(opening, thinking.opening, 1)
            marked["content"] = content.replace(closing, thinking.closing)
        return marked

    def _calling(self, messages: Messages) -> Iterator[dict[str, Any]]:
        """Messages with tool calls and results as the template takes them."""
        shape = self.capabilities.tool_calls
        if shape is None or not any(
            message.get("tool_calls") or message["role"] == "tool" for message in messages
        ):
            yield from (dict(message) for message in messages)
            return
        numbered = list(self._numbered(messages))
        while numbered:
            message = numbered.pop(0)
            calls = message.get("tool_calls")
            if not calls:
                yield message
                continue
            if shape.marks:
                written = written_calls(
                    shape.marks,
                    [(call["function"]["name"], call["function"]["arguments"]) for call in calls],
                )
                said = message["content"]
                yield {
                    **_without(message, "tool_calls"),
                    "content": f"{said}\n{written}" if said else written,
                }
                continue
            calls = [_as_text(call) for call in calls] if shape.arguments == "text" else calls
            first = {
                **message,
                "content": (message["content"] if shape.beside_text else None) or shape.empty,
                "tool_calls": calls,
            }
            if shape.parallel or len(calls) == 1:
                yield first
                continue
            results = []
            while numbered and numbered[0]["role"] == "tool":
                results.append(numbered.pop(0))
            for number, call in enumerate(calls):
                one = (
                    first
                    if number == 0
                    else {**_without(first, "reasoning_content"), "content": shape.empty}
                )
                yield {**one, "tool_calls": [call]}
                mine = [
                    result for result in results if result.get("tool_call_id") == call.get("id")
                ] or results[:1]
                yield from mine
                results = [result for result in results if result not in mine]
            yield from results

    def _numbered(self, messages: Messages) -> Iterator[dict[str, Any]]:
        """Messages whose tool calls and results have ids, and names, that the template takes; those
        it takes as they are stay.
        """
        shape = self.capabilities.tool_calls
        assert shape is not None
        ids: dict[str, str] = {}
        names: dict[str, str] = {}
        waiting: list[str] = []
        number = 0
        for message in messages:
            made = dict(message)
            if message.get("tool_calls"):
                calls = []
                for call in message["tool_calls"]:
                    name, known = call["function"]["name"], str(call.get("id") or f"{len(ids)}")
                    fits = shape.ids == "any" or (
                        "id" in call and re.fullmatch(ID_FORMS[shape.ids], known)
                    )
                    ids[known] = known if fits else call_id(shape, known, name, number)
                    names[ids[known]] = name
                    waiting.append(ids[known])
                    number += 1
                    calls.append(
                        {**call, "id": ids[known]} if "id" in call or shape.ids != "any" else call
                    )
                made["tool_calls"] = calls
            elif message["role"] == "tool":
                given = message.get("tool_call_id")
                identity = ids.get(str(given), given) if given else next(iter(waiting), None)
                if (
                    identity
                    and shape.ids != "any"
                    and not re.fullmatch(ID_FORMS[shape.ids], identity)
                ):
                    identity = call_id(shape, identity, message.get("name", ""), number)
                if identity in waiting:
                    waiting.remove(identity)
                if identity and (given or shape.ids != "any"):
                    made["tool_call_id"] = identity
                if self.capabilities.named_results and identity in names:
                    made.setdefault("name", names[identity])
            yield made


def _without(message: Mapping[str, Any], key: str) -> dict[str, Any]:
    return {name: value for name, value in message.items() if name != key}


def _as_text(call: Mapping[str, Any]) -> dict[str, Any]:
    function = call["function"]
    arguments = function["arguments"]
    text = arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)
    return {**call, "function": {**function, "arguments": text}}


def _with_arguments(message: Mapping[str, Any]) -> dict[str, Any]:
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


def _texts(value: Any) -> Iterator[str]:
    """Every text in a value, keys too: a template prints the keys of arguments and schemas."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield key
            yield from _texts(item)
    elif isinstance(value, list):
        for item in value:
            yield from _texts(item)


def _replaced(value: Any, texts: Sequence[str], by: str) -> Any:
    """A value with these texts replaced wherever they stand in it, but for roles and the names of
    fields.
    """
    if isinstance(value, str):
        for text in texts:
            value = value.replace(text, by)
        return value
    if isinstance(value, Mapping):
        return {
            key: item if key == "role" else _replaced(item, texts, by)
            for key, item in value.items()
        }
    if isinstance(value, list | tuple):
        return type(value)(_replaced(item, texts, by) for item in value)
    return value


def _marked(value: Any, specials: Sequence[str], mark: str) -> Any:
    if isinstance(value, str):
        for special in specials:
            value = value.replace(special, special[:1] + mark + special[1:])
        return value
    if isinstance(value, Mapping):
        return {
            _marked(key, specials, mark): _marked(item, specials, mark)
            for key, item in value.items()
        }
    if isinstance(value, list):
        return [_marked(item, specials, mark) for item in value]
    return value
