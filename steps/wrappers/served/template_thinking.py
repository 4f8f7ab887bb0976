"""How a chat template deals with reasoning, tried by rendering: its switch and its tags."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from .template_probe import ASKED, SAID, SYSTEM, USER, TemplateProbe

THOUGHT = "0probethought0"
# of an assistant's message; the first is OpenAI-style servers'
FIELDS = ("reasoning_content", "reasoning", "thinking", "thought")
TAG = re.compile(r"<[^<>\s][^<>\n]{0,40}>|\[[A-Za-z_/]{2,24}\]")
HINT = re.compile(r"think|thought|reason", re.IGNORECASE)  # in the name of a tag
# tags that models are known to reason in, where a template shows them only in words or by cutting
# them out
PAIRS = (
    ("<think>", "</think>"),
    ("<thinking>", "</thinking>"),
    ("<thought>", "</thought>"),
    ("<reasoning>", "</reasoning>"),
    ("[THINK]", "[/THINK]"),
    ("<|thought_start|>", "<|thought_end|>"),
)


@dataclass(frozen=True)
class Thinking:
    """How a model reasons before it answers.

    Attributes:
        switch: variable of the template that switches reasoning on and off.
        default: what leaving the switch out amounts to; None without a switch.
        opening: tag that reasoning begins with; None where no tags were found, so that reasoning
            cannot be told from the answer.
        closing: tag that it ends with.
        opens: whether the prompt ends with the opening tag already, by the switch's value:
            ``default``, ``true``, ``false``.
        field: key of an assistant's message by which its reasoning reaches the prompt; None where
            the template leaves it out.
    """

    switch: str | None = None
    default: bool | None = None
    opening: str | None = None
    closing: str | None = None
    opens: tuple[str, ...] = ()
    field: str | None = None

    @property
    def tags(self) -> tuple[str, str] | None:
        """Around the reasoning; None where none are known."""
        return (self.opening, self.closing) if self.opening and self.closing else None


def closings_of(opening: str) -> list[str]:
    """What the tag may be called that closes another."""
    first, name, last = re.fullmatch(
        r"(<[|\uff5c]?|\[)(.*?)([|\uff5c]?>|\])", opening, re.DOTALL
    ).groups()  # type: ignore[union-attr]
    if name.startswith("/"):
        return []
    made = [f"{first}/{name}{last}", f"{first[0]}/{first[1:]}{name}{last}"]
    for begins, ends in (("start", "end"), ("begin", "end"), ("START", "END"), ("BEGIN", "END")):
        if begins in name:
            made.append(f"{first}{name.replace(begins, ends)}{last}")
    return made


def probe_thinking(probe: TemplateProbe) -> Thinking | None:
    """Find out how a template deals with reasoning; None where nothing speaks of any."""
    switch, default = _switch(probe)
    ways = {
        "default": probe.opening(),
        **(
            {str(on).lower(): probe.opening({switch: on}) for on in (True, False)} if switch else {}
        ),
    }
    field, tags = _by_field(probe)
    if tags is None:
        tags = (
            _by_opening(probe, ways)
            or _by_history(probe)
            or _by_words(probe, switch)
            or _by_tokens(probe)
        )
    if switch is None and tags is None:
        return None
    if tags is None:
        return Thinking(switch, default, field=field)
    opens = tuple(way for way, text in ways.items() if text.rstrip().endswith(tags[0]))
    return Thinking(switch, default, *tags, opens, field)


def _switch(probe: TemplateProbe) -> tuple[str | None, bool | None]:
    """The variable whose two values make two prompts, one of them what leaving it out makes."""
    read = [
        name for template in probe.template.sources for name in probe.template.variables(template)
    ]
    for name in dict.fromkeys(name for name in read if HINT.search(name)):
        on, off, unset = (
            probe.text([USER], {name: True}),
            probe.text([USER], {name: False}),
            probe.text([USER]),
        )
        if on is not None and off is not None and on != off and unset in (on, off):
            return name, unset == on
    return None, None


def _by_field(probe: TemplateProbe) -> tuple[str | None, tuple[str, str] | None]:
    """The key that carries reasoning, and the tags that the template writes around it."""
    for field in FIELDS:
        text = probe.text(
            [USER, {"role": "assistant", "content": SAID, field: THOUGHT}], opening=False
        )
        if text is None or THOUGHT not in text or SAID not in text:
            continue
        before, after = text.split(THOUGHT, 1)
        opening, closing = _tag_at_end(before), TAG.match(after.lstrip())
        structure = _tag_at_end(text[: text.find(ASKED)])  # such as comes before any message
        if (
            opening is None
            or closing is None
            or opening == structure
            or after.find(SAID) < after.find(closing.group())
        ):
            return field, None
        return field, (opening, closing.group())
    return None, None


def _by_opening(probe: TemplateProbe, ways: dict[str, str]) -> tuple[str, str] | None:
    """Tags in what opens an answer: an empty pair (before an earlier answer, too), a tag by each
    value, or one that stays open.
    """
    earlier = probe.text([USER, {"role": "assistant", "content": SAID}, USER]) or ""
    for text in (*ways.values(), earlier[: earlier.find(SAID)]):
        for tag in TAG.finditer(text):
            rest = text[tag.end() :].lstrip()
            for closing in closings_of(tag.group()):
                if rest.startswith(closing):
                    return tag.group(), closing
    ends = [tag for tag in map(_tag_at_end, ways.values()) if tag]
    for opening in ends:
        for closing in closings_of(opening):
            known = closing in probe.template.added or HINT.search(opening)
            if closing in ends or known or _cut(probe, opening, closing):
                return opening, closing
    return None


def _by_history(probe: TemplateProbe) -> tuple[str, str] | None:
    """Tags that the template cuts out of an earlier answer."""
    return next((pair for pair in (*PAIRS, *_token_pairs(probe)) if _cut(probe, *pair)), None)


def _by_words(probe: TemplateProbe, switch: str | None) -> tuple[str, str] | None:
    """Tags that the template tells the model to write."""
    texts = [
        probe.text([USER], {switch: True} if switch else {}),
        probe.text([{"role": "system", "content": SYSTEM}, USER]),
    ]
    return next(
        (
            pair
            for pair in (*PAIRS, *_token_pairs(probe))
            if any(probe.holds(pair, text) for text in texts)
        ),
        None,
    )


def _by_tokens(probe: TemplateProbe) -> tuple[str, str] | None:
    """Tags that the tokenizer has as tokens."""
    return next(iter(_token_pairs(probe)), None)


def _token_pairs(probe: TemplateProbe) -> Iterator[tuple[str, str]]:
    for token in probe.template.added:
        if HINT.search(token) and TAG.fullmatch(token):
            yield from (
                (token, closing)
                for closing in closings_of(token)
                if closing in probe.template.added
            )


def _cut(probe: TemplateProbe, opening: str, closing: str) -> bool:
    said = {"role": "assistant", "content": f"{opening}\n{THOUGHT}\n{closing}\n\n{SAID}"}
    text = probe.text([USER, said, USER], keep=False)
    return text is not None and SAID in text and THOUGHT not in text


def _tag_at_end(text: str) -> str | None:
    tags = list(TAG.finditer(text))
    return tags[-1].group() if tags and not text[tags[-1].end() :].strip() else None
