"""What a checkpoint's chat template can do, as data: tried once, kept with the model."""

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from .template import ChatTemplate
from .template_probe import ASKED, SAID, SYSTEM, USER, TemplateProbe
from .template_thinking import Thinking, probe_thinking
from .template_tools import CallShape, ToolPlace
from .template_tools_probe import probe_tools

RESERVED = frozenset(  # what a request says elsewhere, or what is the server's to say
    {
        "messages",
        "tools",
        "add_generation_prompt",
        "continue_final_message",
        "raise_exception",
        "strftime_now",
    }
)
# how vocabularies write what is not text, whether they call it special or not
CONTROL = re.compile("<[|\uff5c].*[|\uff5c]>", re.DOTALL)


@dataclass(frozen=True)
class TemplateCapabilities:
    """What a chat template can do.

    Attributes:
        templates: names of the checkpoint's templates.
        system_role: a system message's text arrives in the prompt.
        developer_role: the template knows the role ``developer``; otherwise such a message is given
            as a system message.
        content_parts: content arrives only as a list of parts.
        tools: how tool definitions arrive; None where they cannot.
        tool_calls: how an assistant's tool calls are given back; None where they cannot be.
        tool_results: a message of role ``tool`` arrives.
        named_results: such a message needs the name of its tool.
        thinking: how the model reasons; None where nothing speaks of it.
        turn_end: added token that the template writes after an assistant's answer.
        structure: texts of added tokens that are not special, yet the template writes them, or
            their form says that they are not text.
        variables: what ``chat_template_kwargs`` may name; tools are offered under their own key
            alone.
    """

    templates: tuple[str, ...] = ()
    system_role: bool = False
    developer_role: bool = False
    content_parts: bool = False
    tools: ToolPlace | None = None
    tool_calls: CallShape | None = None
    tool_results: bool = False
    named_results: bool = False
    thinking: Thinking | None = None
    turn_end: str | None = None
    structure: tuple[str, ...] = ()
    variables: tuple[str, ...] = ()

    @classmethod
    def of(cls, template: ChatTemplate) -> "TemplateCapabilities":
        """Try a template; one that is missing, or takes no question, can do nothing."""
        probe = TemplateProbe(template)
        parts = probe.text([USER]) is None or ASKED not in probe.seen[0]
        if parts and not probe.holds(
            [ASKED], probe.text([{"role": "user", "content": [{"type": "text", "text": ASKED}]}])
        ):
            return cls(tuple(template.sources), structure=_structure(probe, None))
        if parts:  # a template of a model that sees: what it does with text is enough
            system = {"role": "system", "content": [{"type": "text", "text": SYSTEM}]}
            user = {"role": "user", "content": [{"type": "text", "text": ASKED}]}
            return cls(
                tuple(template.sources),
                probe.holds([SYSTEM, ASKED], probe.text([system, user])),
                content_parts=True,
                structure=_structure(probe, None),
            )
        system_role = probe.holds(
            [SYSTEM, ASKED], probe.text([{"role": "system", "content": SYSTEM}, USER])
        )
        tools = probe_tools(probe, system_role=system_role)
        thinking = probe_thinking(probe)
        names = [name for source in template.sources for name in template.variables(source)]
        return cls(
            templates=tuple(template.sources),
            system_role=system_role,
            developer_role=_developer_role(probe),
            tools=tools.place,
            tool_calls=tools.calls,
            tool_results=tools.results,
            named_results=tools.named_results,
            thinking=thinking,
            turn_end=_turn_end(probe),
            structure=_structure(probe, thinking),
            variables=tuple(
                dict.fromkeys(
                    name
                    for name in names
                    if name not in RESERVED and not name.endswith(("_token", "tools"))
                )
            ),
        )

    @property
    def reasoning_tags(self) -> tuple[str, str] | None:
        """Around the reasoning in an answer; None where they are not known."""
        return self.thinking.tags if self.thinking else None

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            key: list(value) if isinstance(value, tuple) else value
            for key, value in asdict(self).items()
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "TemplateCapabilities":
        """Read what ``to_json`` gave.

        Raises:
            TypeError: another version wrote it.
        """
        names = {field.name for field in fields(cls)}
        # what is missing would be read as what the template cannot do
        if set(values) != names:
            raise TypeError(f"template: expected the keys {sorted(names)}")
        made: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value for key, value in values.items()
        }
        for key, kind in (("tools", ToolPlace), ("tool_calls", CallShape), ("thinking", Thinking)):
            if made.get(key) is not None:
                held: dict[str, Any] = {
                    name: tuple(value) if isinstance(value, list) else value
                    for name, value in made[key].items()
                }
                made[key] = kind(**held)
        return cls(**made)


def _developer_role(probe: TemplateProbe) -> bool:
    """Whether the template does with ``developer`` what it does not do with any role."""
    known = probe.text([{"role": "developer", "content": SYSTEM}, USER])
    other = probe.text([{"role": "0probe0", "content": SYSTEM}, USER], keep=False)
    return probe.holds([SYSTEM, ASKED], known) and known != (other or "").replace(
        "0probe0", "developer"
    )


def _turn_end(probe: TemplateProbe) -> str | None:
    text = probe.text([USER, {"role": "assistant", "content": SAID}], opening=False)
    rest = (text or "").rpartition(SAID)[2].lstrip()
    ends = [
        token
        for token in {*probe.template.added, *probe.template.special_texts}
        if token.strip() and rest.startswith(token)
    ]
    return max(ends, key=len, default=None)


def _structure(probe: TemplateProbe, thinking: Thinking | None) -> tuple[str, ...]:
    tags = {thinking.opening, thinking.closing} if thinking else set()
    sources = probe.template.sources
    written = "\0".join(
        {*probe.seen, *(sources.values() if isinstance(sources, dict) else sources)}
    )
    plain = [
        text
        for text, special in probe.template.added.items()
        if not special and len(text.strip()) > 1
    ]
    return tuple(
        sorted(text for text in plain if text in written or text in tags or CONTROL.fullmatch(text))
    )
