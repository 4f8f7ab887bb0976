"""Conversations as a checkpoint's chat template takes them: roles, tools, calls and reasoning put
where they arrive, or refused.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from mlflow.exceptions import MlflowException

from .checkpoint_files import read_json
from .conversation_arrival import require_arrival, require_supported
from .conversation_tools import with_arguments, with_tool_calls
from .invalid_request import invalid_request
from .limits import CAPABILITIES
from .special_texts import blanked, blanked_message, marked, marked_message, random_mark, texts_in
from .template import ChatTemplate
from .template_capabilities import TemplateCapabilities

Messages = Sequence[Mapping[str, Any]]


class Conversation(NamedTuple):
    """What a template is given; arguments of tool calls are values."""

    messages: Messages
    tools: list[Any]
    variables: dict[str, Any]


class Conversations:
    """Renders conversations in the shape that a template takes.

    Args:
        template: of the checkpoint.
        capabilities: of the template; tried now where they are not given.
    """

    def __init__(
        self, template: ChatTemplate, capabilities: TemplateCapabilities | None = None
    ) -> None:
        self.template = template
        self.capabilities = capabilities or TemplateCapabilities.of(template)
        self._guarded = sorted(
            {*template.special_texts, *self.capabilities.structure} - {""}, key=len, reverse=True
        )

    @classmethod
    def of_folder(cls, folder: Path) -> "Conversations":
        """Read a folder's template, with the capabilities that were written when it was logged;
        where there are none, it is tried now.
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
        return self._rendered(self._checked(messages, tools, variables))

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
        given = self._checked(messages, tools, variables)
        texts = list(texts_in(given))
        if any(guarded in text for text in texts for guarded in self._guarded):
            segments = self._cut(given, self._guarded)
        else:
            segments = [self._rendered(given)]
        firsts = tuple({guarded[0] for guarded in self._guarded})
        if not any(first in text for text in texts for first in firsts):
            return segments
        # a template that takes something out of a text may make such a token of what is left: then
        # every first character is cut off
        tags = self.capabilities.reasoning_tags
        blank = Conversation(
            [blanked_message(message, firsts, tags) for message in given.messages],
            *blanked(given[1:], firsts),
        )
        if self._count(segments) > self._count([self._rendered(blank)]):
            return self._cut(given, firsts)
        return segments

    def opens_reasoning(self, end: str) -> bool:
        """Whether a prompt that ends like this has opened the reasoning already."""
        thinking = self.capabilities.thinking
        return bool(thinking and thinking.opening and end.rstrip().endswith(thinking.opening))

    def _checked(
        self, messages: Messages, tools: Messages, variables: Mapping[str, Any] | None
    ) -> Conversation:
        if self.template.sources:  # rendering says so where there is none
            require_supported(messages, tools, self.capabilities)
        given = Conversation(
            [with_arguments(message) for message in messages], list(tools), dict(variables or {})
        )
        require_arrival(
            given.messages, lambda messages: self._rendered(given._replace(messages=messages))
        )
        return given

    def _cut(self, given: Conversation, texts: Sequence[str]) -> list[str]:
        """Render with these texts of the request cut after their first character."""
        mark = random_mark()
        tags = self.capabilities.reasoning_tags
        rendered = self._rendered(
            Conversation(
                [marked_message(message, texts, mark, tags) for message in given.messages],
                marked(given.tools, texts, mark),
                marked(given.variables, texts, mark),
            )
        )
        return [segment for segment in rendered.split(mark) if segment]

    def _count(self, segments: Sequence[str]) -> int:
        return sum(segment.count(guarded) for segment in segments for guarded in self._guarded)

    def _rendered(self, given: Conversation) -> str:
        tools, variables = given.tools, given.variables
        calling = with_tool_calls(given.messages, self.capabilities)
        shaped: Messages = [self._shaped(message) for message in calling]
        if not tools:
            return self.template.render(shaped, variables)
        place = self.capabilities.tools
        assert place is not None
        placed, carrying = place.put(shaped, tools)
        text = self.template.render(placed, {**variables, **carrying}, name=place.template)
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
        """A message with its role, reasoning and content where the template reads them."""
        can, shaped = self.capabilities, dict(message)
        if shaped["role"] == "developer" and not can.developer_role:
            shaped["role"] = "system"  # OpenAI's newer name for it, which few templates know
        if "reasoning_content" in shaped and can.thinking and can.thinking.field:
            shaped[can.thinking.field] = shaped["reasoning_content"]
        if can.content_parts:
            shaped["content"] = [{"type": "text", "text": shaped["content"] or ""}]
        return shaped
