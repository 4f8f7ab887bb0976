"""Marks that language models write around tool calls, a reader for each.

Formats are those of Qwen and Hermes, Phi, Granite, Mistral, Llama 3, DeepSeek, Kimi, GLM, LFM and
Qwen-Coder, as their model cards and chat templates show them.
"""

import re

from .call_bodies import (
    DECODER,
    FENCE,
    PYTHON,
    Read,
    Reader,
    WrittenCall,
    after_space,
    as_argument_pairs,
    as_fence,
    as_function_tags,
    as_json,
    as_named_arguments,
    as_python,
)

HEADED = re.compile(  # DeepSeek and Kimi: begin, perhaps a kind, separator, name or arguments
    r"\s*(?:<\uff5ctool\u2581call\u2581begin\uff5c>|<\|tool_call_begin\|>)"
    r"(?:function(?=<\uff5c))?(?:<\uff5ctool\u2581sep\uff5c>)?\s*([^<\s]+?)\s*(?:<\uff5ctool\u2581sep\uff5c>|<\|tool_call_argument_begin\|>|\n)"
)
HEADED_END = re.compile(r"\s*(?:<\uff5ctool\u2581call\u2581end\uff5c>|<\|tool_call_end\|>)")


def _tagged(opening: str, closing: str) -> Reader:
    """Calls after a mark; the closing mark may be left out, as at the end of an answer."""

    def read(text: str, position: int) -> Read:
        start = after_space(text, position + len(opening))
        for reader in BODIES:
            body = reader(text, start)
            if body is not None:
                break
        else:
            if not PYTHON.match(text, start):
                return None
            close = text.find(closing, start) if closing else -1
            end = close if close >= 0 else len(text)
            body = as_python(text[start:end], end)
        if body is None:
            return None
        end = after_space(text, body[1])
        closed = closing and text.startswith(closing, end)
        return body[0], end + len(closing) if closed else body[1]

    return read


def _headed(opening: str, closing: str) -> Reader:
    """DeepSeek's and Kimi's calls: each with a head that names it."""

    def read(text: str, position: int) -> Read:
        calls: list[WrittenCall] = []
        position += len(opening)
        while head := HEADED.match(text, position):
            start = after_space(text, head.end())
            fenced = FENCE.match(text, start)
            try:
                arguments, end = DECODER.raw_decode(
                    text, after_space(text, fenced.end()) if fenced else start
                )
            except (ValueError, RecursionError):
                return None
            end = after_space(text, end)
            end += 3 if fenced and text.startswith("```", end) else 0
            name = head.group(1)
            if "argument" in head.group():
                name = re.sub(r"^functions\.|:\d+$", "", name)
            calls.append(WrittenCall(name, arguments))
            closed = HEADED_END.match(text, end)
            position = closed.end() if closed else end
        if not calls:
            return None
        after = after_space(text, position)
        return calls, after + len(closing) if text.startswith(closing, after) else position

    return read


BODIES = (as_json, as_function_tags, as_argument_pairs, as_named_arguments, as_fence)
TAGS = (
    ("<tool_call>", "</tool_call>"),
    ("<|tool_call|>", "<|/tool_call|>"),
    ("<|tool_call_start|>", "<|tool_call_end|>"),
    ("<tool_calls>", "</tool_calls>"),
    ("<function_call>", "</function_call>"),
    ("<|action_start|><|plugin|>", "<|action_end|>"),
    ("<|python_tag|>", ""),
    ("[TOOL_CALLS]", ""),
)
HEADS = (
    ("<\uff5ctool\u2581calls\u2581begin\uff5c>", "<\uff5ctool\u2581calls\u2581end\uff5c>"),
    ("<|tool_calls_section_begin|>", "<|tool_calls_section_end|>"),
)
READERS: dict[str, Reader] = {  # by what the format begins with
    **{opening: _tagged(opening, closing) for opening, closing in TAGS},
    **{opening: _headed(opening, closing) for opening, closing in HEADS},
    "<function=": as_function_tags,
    "```": lambda text, position: as_fence(text, position, explicit=False),
}
INNER_MARKS = (  # that stand within calls; special tokens in some vocabularies
    *("[ARGS]", "[CALL_ID]", "<\uff5ctool\u2581sep\uff5c>"),
    *("<\uff5ctool\u2581call\u2581begin\uff5c>", "<\uff5ctool\u2581call\u2581end\uff5c>"),
    *("<|tool_call_begin|>", "<|tool_call_argument_begin|>", "<|tool_call_end|>"),
    *("<|action_start|>", "<|plugin|>"),
)
MARKS = frozenset({*INNER_MARKS, *(mark for pair in (*TAGS, *HEADS) for mark in pair if mark)})
