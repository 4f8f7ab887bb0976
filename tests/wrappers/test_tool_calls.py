"""Tool calls are read in the ways that families of models write them, whole and streamed; what is
no call stays text.
"""

import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from steps.wrappers.served.template_tools import CallShape
from steps.wrappers.served.tool_calls import CallWatch, Offer, tool_calls_in

SCHEMA = {
    "type": "object",
    "properties": {
        "zone": {"type": "string"},
        "days": {"type": "integer"},
        "on": {"type": "boolean"},
    },
}
OFFER = Offer(dict.fromkeys(("now", "a", "b"), SCHEMA))
UTC: dict[str, Any] = {"zone": "UTC"}
BEGIN, END = "<\uff5ctool\u2581call\u2581begin\uff5c>", "<\uff5ctool\u2581call\u2581end\uff5c>"
ALL, DONE, SEP = (
    "<\uff5ctool\u2581calls\u2581begin\uff5c>",
    "<\uff5ctool\u2581calls\u2581end\uff5c>",
    "<\uff5ctool\u2581sep\uff5c>",
)

WRITTEN: list[tuple[str, str, list[tuple[str, dict[str, Any]]]]] = [
    # Qwen, Hermes, SmolLM3
    (
        '<tool_call>\n{"name": "now", "arguments": {"zone": "UTC"}}\n</tool_call>',
        "",
        [("now", UTC)],
    ),
    (
        (
            '<tool_call>{"name": "a", "arguments": {}}</tool_call><tool_call>{"name": "b",'
            ' "arguments": "{}"}</tool_call>'
        ),
        "",
        [("a", {}), ("b", {})],
    ),
    ('I look.\n<tool_call>{"name": "now", "arguments": {}}</tool_call>', "I look.", [("now", {})]),
    ('<tool_call>{"name": "now", "arguments": {}}</tool_call>\nWait.', "Wait.", [("now", {})]),
    (
        '<tool_call>{"name": "now", "arguments": {"zone": "</tool_call>"}}</tool_call>',
        "",
        [("now", {"zone": "</tool_call>"})],
    ),
    ('<tool_call>{"name": "now", "arguments": {}}', "", [("now", {})]),
    ('<tool_call>{"name": "now"}</tool_call>', "", [("now", {})]),
    # Phi-4-mini, Granite
    (
        '<|tool_call|>[{"name": "now", "arguments": {"zone": "UTC"}}]<|/tool_call|>',
        "",
        [("now", UTC)],
    ),
    (
        (
            '<|tool_call|>[{"name": "now", "arguments": {"zone": "UTC"}}, {"name": "a",'
            ' "arguments": {}}]'
        ),
        "",
        [("now", UTC), ("a", {})],
    ),
    ('<tool_call>[{"name": "now", "arguments": {}}]', "", [("now", {})]),
    (
        (
            '<|tool_call|>{"type": "function", "function": {"name": "now", "arguments":'
            " {}}}<|/tool_call|>"
        ),
        "",
        [("now", {})],
    ),
    # Mistral
    ('[TOOL_CALLS][{"name": "now", "arguments": {}}]', "", [("now", {})]),
    (
        (
            '[TOOL_CALLS] [{"name": "now", "arguments": {}, "id": "abcdefghi"}, {"name": "a",'
            ' "arguments": {}}]'
        ),
        "",
        [("now", {}), ("a", {})],
    ),
    ('[TOOL_CALLS]now[ARGS]{"zone": "UTC"}', "", [("now", UTC)]),
    ('[TOOL_CALLS]now[ARGS]{"zone": "UTC"}[TOOL_CALLS]a[ARGS]{}', "", [("now", UTC), ("a", {})]),
    ('Well. [TOOL_CALLS]now[CALL_ID]abcdefghi[ARGS]{"zone": "UTC"}', "Well.", [("now", UTC)]),
    ('[TOOL_CALLS]now{"zone": "UTC"}a{}', "", [("now", UTC), ("a", {})]),
    # Llama 3
    ('{"name": "now", "parameters": {"zone": "UTC"}}', "", [("now", UTC)]),
    (
        '{"name": "a", "parameters": {}}; {"name": "b", "parameters": {"zone": "UTC"}}',
        "",
        [("a", {}), ("b", UTC)],
    ),
    (
        '{"name": "a", "parameters": {}}\n{"name": "b", "parameters": {}}\n',
        "",
        [("a", {}), ("b", {})],
    ),
    ('[{"name": "a", "arguments": {}}]', "", [("a", {})]),
    (
        '<|python_tag|>{"type": "function", "name": "now", "parameters": {"zone": "UTC"}}',
        "",
        [("now", UTC)],
    ),
    ('<function=now>{"zone": "UTC"}</function>', "", [("now", UTC)]),
    ('[now(zone="UTC", days=-1), a()]', "", [("now", {"zone": "UTC", "days": -1}), ("a", {})]),
    # Qwen-Coder, GLM
    (
        "<tool_call>\n<function=now>\n<parameter=zone>\n5\n</parameter>\n<parameter=days>\n5\n</parameter>\n</function>\n</tool_call>",
        "",
        [("now", {"zone": "5", "days": 5})],
    ),
    (
        "<function=a><parameter=zone>one\ntwo</parameter><parameter=on>True</parameter></function>",
        "",
        [("a", {"zone": "one\ntwo", "on": True})],
    ),
    (
        "<tool_call>now\n<arg_key>days</arg_key>\n<arg_value>3</arg_value>\n</tool_call>",
        "",
        [("now", {"days": 3})],
    ),
    # fenced
    ('Sure:\n```json\n{"name": "now", "arguments": {"zone": "UTC"}}\n```', "Sure:", [("now", UTC)]),
    ('```\n[{"name": "now", "arguments": {}}]\n```\nDone.', "Done.", [("now", {})]),
    ('```tool_code\nnow(zone="UTC")\n```', "", [("now", UTC)]),
    # DeepSeek, Kimi
    (
        (
            f'{ALL}{BEGIN}function{SEP}now\n```json\n{{"zone":'
            f' "UTC"}}\n```{END}\n{BEGIN}function{SEP}a\n```json\n{{}}\n```{END}{DONE}'
        ),
        "",
        [("now", UTC), ("a", {})],
    ),
    (f'{ALL}{BEGIN}now{SEP}{{"zone": "UTC"}}{END}{DONE}', "", [("now", UTC)]),
    (
        "<|tool_calls_section_begin|><|tool_call_begin|>functions.now:0<|tool_call_argument_begin|>{}<|tool_call_end|><|tool_calls_section_end|>",
        "",
        [("now", {})],
    ),
    # LFM, MiniCPM
    (
        "<|tool_call_start|>[now(zone='UTC', on=true)]<|tool_call_end|>Wait.",
        "Wait.",
        [("now", {"zone": "UTC", "on": True})],
    ),
    (
        "<|tool_call_start|>\n```python\nnow(zone='UTC')\na()\n```\n<|tool_call_end|>",
        "",
        [("now", UTC), ("a", {})],
    ),
]
PLAIN = [
    "It is noon.",
    "<tool_call>not JSON</tool_call>",
    '<tool_call>{"name": "nobody_offered", "arguments": {}}</tool_call>',
    '<tool_call>{"name": "nobody_offered", "arguments": {"zone": "[now()]"}}</tool_call>',
    '{"name": "now", "arguments": [1]}',
    '{"name": "now", "arguments": "noon"}',
    '{"name": "now"}',
    '{"name": ["now"], "arguments": {}}',
    '{"answer": 42}',
    "42",
    " [1, 2]",
    "[]",
    "[nobody()]",
    "[now(open('x'))]",
    "[now(zone=open('x'))]",
    "[now(**{})]",
    '<tool_call>{"name": "now", "arguments": {"days": NaN}}</tool_call>',
    "<function=now><parameter=zone>UTC",
    '```json\n{"days": 3}\n```',
    "```python\nnow(zone='UTC')\n```",
    "[TOOL_CALLS]",
    "<|python_tag|>print(1)",
    "a < b and [x for x in y] {",
    "[" * 100_000,
    '{"a":' * 100_000,
    "<tool_call>" * 5_000,
    "",
]


def shaped(calls: list[dict[str, Any]]) -> list[tuple[str, Any]]:
    return [(call["function"]["name"], json.loads(call["function"]["arguments"])) for call in calls]


@pytest.mark.parametrize(("text", "said", "calls"), WRITTEN)
def test_calls_are_read_as_models_write_them(
    text: str, said: str, calls: list[tuple[str, Any]]
) -> None:
    content, made = tool_calls_in(text, OFFER)
    assert (content, shaped(made)) == (said, calls)
    assert len({call["id"] for call in made}) == len(made)


@pytest.mark.parametrize("text", PLAIN)
def test_what_is_no_call_of_an_offered_tool_stays_text(text: str) -> None:
    assert tool_calls_in(text, OFFER) == (text, [])


@pytest.mark.parametrize(("text", "said", "calls"), WRITTEN)
def test_where_no_tool_is_offered_all_is_text(text: str, said: str, calls: object) -> None:  # noqa: ARG001
    assert tool_calls_in(text, Offer()) == (text, [])


def test_a_malformed_call_beside_a_whole_one_stays_text() -> None:
    content, calls = tool_calls_in(
        '<tool_call>{"name": "now", "arguments": {}}</tool_call><tool_call>{"name": "a", "argum',
        OFFER,
    )
    assert (content, shaped(calls)) == ('<tool_call>{"name": "a", "argum', [("now", {})])


def streamed(pieces: list[str], offer: Offer) -> tuple[str, list[tuple[str, Any]], list[str]]:
    watch = CallWatch(offer)
    shown = [watch.take(piece) for piece in pieces]
    rest, calls = watch.finish()
    return "".join(shown) + rest, shaped(calls), shown


BESIDE = ["Well. ", "  ", "\n", "a < b ", "[", "`x` ", ""]


@given(
    st.sampled_from(BESIDE),
    st.sampled_from([text for text, _, _ in WRITTEN] + [text for text in PLAIN if len(text) < 200]),
    st.sampled_from(BESIDE),
    st.lists(st.integers(0, 300), max_size=12),
)
def test_streamed_pieces_join_to_the_whole_answer(
    before: str, text: str, after: str, cuts: list[int]
) -> None:
    text = before + text + after
    bounds = [0, *sorted({cut % (len(text) + 1) for cut in cuts}), len(text)]
    content, calls, _ = streamed([text[start:end] for start, end in pairwise(bounds)], OFFER)
    whole, made = tool_calls_in(text, OFFER)
    assert (content, calls) == (whole, shaped(made))


def test_what_cannot_be_a_call_is_shown_at_once() -> None:
    _, _, shown = streamed(
        ["It is", " noon, ", "I think", '. <tool_call>{"name": "now",', ' "arguments": {}}'], OFFER
    )
    assert shown == ["It is", " noon,", " I think", ".", ""]


def test_marks_that_are_special_tokens_never_are_content() -> None:
    offer = Offer(OFFER.schemas, kept=frozenset({"[TOOL_CALLS]", "[ARGS]"}))
    assert tool_calls_in("Well[TOOL_CALLS]nobody[ARGS]{}", offer) == ("Wellnobody{}", [])
    assert streamed(["Well", "[TOOL_CALLS]", "nobody", "[ARGS]", "{}"], offer)[0] == "Wellnobody{}"
    assert shaped(tool_calls_in("[TOOL_CALLS]now[ARGS]{}", offer)[1]) == [("now", {})]


def test_ids_are_such_as_the_template_takes_back() -> None:
    text = '{"name": "a", "parameters": {}}; {"name": "a", "parameters": {}}'
    nine = [
        call["id"] for call in tool_calls_in(text, Offer(OFFER.schemas, CallShape(ids="nine")))[1]
    ]
    assert all(len(identity) == 9 and identity.isalnum() for identity in nine)
    assert len(set(nine)) == 2
    named = tool_calls_in(text, Offer(OFFER.schemas, CallShape(ids="function"), earlier=3))[1]
    assert [call["id"] for call in named] == ["functions.a:3", "functions.a:4"]
