"""Forced tool calls: found out how a template writes them, and answers held to that by the real
engine.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from mlflow.exceptions import MlflowException

from steps.wrappers.capabilities import capabilities_of, template_of
from steps.wrappers.served.call_form import CallForm, ForcedCalls
from steps.wrappers.served.conversation import Conversations
from steps.wrappers.served.limits import CAPABILITIES
from tests.wrappers import template_shapes
from tests.wrappers.doubles import SayingModel
from tests.wrappers.subjects import NAME, Context, Folders, Open, say
from tests.wrappers.template_shapes import checkpoint, conversations, tool

LLAMA = template_shapes.TURNS.replace(
    "{{ m.content }}",
    "{{ m.content }}{% for c in m.tool_calls or [] %}{{ '; ' if not loop.first }}"
    '{"name": "{{ c.function.name }}", "parameters": {{ c.function.arguments | tojson }}}'
    "{% endfor %}",
).replace("{% for m", "{% if tools %}{{ tools | tojson }}{% endif %}{% for m", 1)
MISTRAL_NEW = template_shapes.NINE.replace(
    '{{ (c.function | tojson)[:-1] }}, "id": "{{ c.id }}"}{{ \', \' if not loop.last }}',
    "{{ c.function.name }}[ARGS]{{ c.function.arguments | tojson }}",
).replace("[TOOL_CALLS][{%", "[TOOL_CALLS]{%")
GRANITE = LLAMA.replace(
    "{% for c in m.tool_calls or [] %}{{ '; ' if not loop.first }}"
    '{"name": "{{ c.function.name }}", "parameters": {{ c.function.arguments | tojson }}}'
    "{% endfor %}",
    "{% if m.tool_calls %}{{ m.tool_calls | tojson }}{% endif %}",
)
CODER = LLAMA.replace(
    '{"name": "{{ c.function.name }}", "parameters": {{ c.function.arguments | tojson }}}',
    "<function={{ c.function.name }}>{% for k, v in c.function.arguments.items() %}"
    "<parameter={{ k }}>{{ v }}</parameter>{% endfor %}</function>",
)

FORMS = {
    "HERMES": '<tool_call>{"name": "now", "arguments": {}}</tool_call>',
    "NINE": '[TOOL_CALLS][{"name": "now", "arguments": {}}]',
    "LLAMA": '{"name": "now", "parameters": {}}',
    "GRANITE": '[{"type": "function", "function": {"name": "now", "arguments": {}}}]',
    "MISTRAL_NEW": "[TOOL_CALLS]now[ARGS]{}",
    "SYSTEM_KEY": '<tool_call>\n{"name": "now", "arguments": {}}\n</tool_call>',
    "TEXT_ARGUMENTS": '<tool_call>{"name": "now", "arguments": {}}</tool_call>',
}
SHAPES = {**vars(template_shapes), "LLAMA": LLAMA, "MISTRAL_NEW": MISTRAL_NEW}
SHAPES |= {"GRANITE": GRANITE}


@pytest.mark.parametrize("shape", FORMS)
def test_calls_are_written_as_the_template_writes_them(tmp_path: Path, shape: str) -> None:
    form = CallForm.of(conversations(tmp_path / "checkpoint", SHAPES[shape]))
    assert form is not None
    assert form.text(["now"]) == FORMS[shape]
    assert form.reads(["now", "later"]) == (form.join is not None)


def test_a_template_of_one_call_has_no_second(tmp_path: Path) -> None:
    form = CallForm.of(conversations(tmp_path / "checkpoint", template_shapes.ONE_CALL))
    assert form is not None
    assert form.join is None


def test_calls_whose_arguments_are_not_json_cannot_be_forced(tmp_path: Path) -> None:
    forced = ForcedCalls(conversations(tmp_path / "checkpoint", CODER), {})
    assert forced.form is None
    with pytest.raises(MlflowException, match=r"tool_choice='required': .* cannot be forced"):
        forced.grammar([tool()], ["now"], several=True, asked="required")


def test_special_tokens_are_named_by_their_ids(tmp_path: Path) -> None:
    folder = checkpoint(tmp_path / "checkpoint", template_shapes.NINE, special=("[TOOL_CALLS]",))
    forced = ForcedCalls(Conversations.of_folder(folder), {"[TOOL_CALLS]": 256})
    grammar = forced.grammar([tool()], ["now"], several=False, asked="required")
    assert grammar.text.startswith('start: <[256]> "[{\\"name\\": \\"" call "}]"')


# --- on the real engine

WEATHER: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "Looks the weather up.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"enum": ["Paris", "Łódź"]}, "days": {"type": "integer"}},
            "required": ["city", "days"],
            "additionalProperties": False,
        },
    },
}
# closed: else a small model may write arguments until its tokens are used up
NOTHING: dict[str, Any] = {"type": "object", "properties": {}, "additionalProperties": False}
NOW: dict[str, Any] = {"type": "function", "function": {"name": "now", "parameters": NOTHING}}
ASKED = say("What is the weather in Paris?", tools=[NOW, WEATHER], max_tokens=120)


def with_tools(source: Path, made: Path, special: str | None) -> Path:
    """The embedded model with a template that speaks of tools; ``special`` makes one of its special
    tokens the mark of a call.
    """
    made.mkdir()
    for file in source.iterdir():
        if file.name not in ("chat_template.jinja", CAPABILITIES, "tokenizer.json"):
            (made / file.name).symlink_to(file)
    template = (source / "chat_template.jinja").read_text()
    (made / "chat_template.jinja").write_text(
        "{% if tools %}{{ tools | tojson }} <tool_call>{% endif %}" + template
    )
    tokens = (source / "tokenizer.json").read_text("utf-8")
    (made / "tokenizer.json").write_text(
        tokens.replace(special, "<tool_call>") if special else tokens, "utf-8"
    )
    known = {**capabilities_of(source), "template": template_of(made)}
    (made / CAPABILITIES).write_text(json.dumps(known))
    return made


@pytest.fixture(scope="module", params=[None, "<jupyter_start>"], ids=["text", "special"])
def model(
    request: pytest.FixtureRequest,
    smollm: Folders,
    open_onnx: Open,
    tmp_path_factory: pytest.TempPathFactory,
) -> Any:
    folder = tmp_path_factory.mktemp("forced") / "folder"
    return open_onnx(with_tools(smollm.onnx("int4"), folder, request.param))


def calls_of(answer: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    [choice] = answer["choices"]
    assert choice["message"]["content"] is None
    return [
        (call["function"]["name"], json.loads(call["function"]["arguments"]))
        for call in choice["message"]["tool_calls"]
    ]


NAMED = {"type": "function", "function": {"name": "weather"}}


@pytest.mark.parametrize("sampled", [{}, {"temperature": 1.5, "seed": 3}])
def test_a_named_tool_is_called_once_with_arguments_of_its_schema(
    model: Any, sampled: dict[str, Any]
) -> None:
    [answer] = model.predict(None, {**ASKED, **sampled, "tool_choice": NAMED})
    [(name, arguments)] = calls_of(answer)
    assert name == "weather"
    jsonschema.validate(arguments, WEATHER["function"]["parameters"])
    assert answer["choices"][0]["finish_reason"] == "tool_calls"


def test_required_calls_a_tool_where_auto_says_something(model: Any) -> None:
    [free] = model.predict(None, ASKED)
    assert "tool_calls" not in free["choices"][0]["message"]
    [answer] = model.predict(
        None, {**ASKED, "tool_choice": "required", "parallel_tool_calls": False}
    )
    [(name, _)] = calls_of(answer)
    assert name in ("now", "weather")
    [answer] = model.predict(None, {**ASKED, "tool_choice": "required"})
    [choice] = answer["choices"]
    assert choice["message"]["tool_calls"]
    assert choice["finish_reason"] in ("tool_calls", "length")


def test_forced_calls_are_streamed(model: Any) -> None:
    chunks = list(model.predict_stream(None, {**ASKED, "tool_choice": NAMED}))
    deltas = [chunk["choices"][0]["delta"] for chunk in chunks]
    assert [sorted(delta) for delta in deltas] == [["content", "role"], ["tool_calls"], []]
    [whole] = model.predict(None, {**ASKED, "tool_choice": NAMED})
    [call] = deltas[1]["tool_calls"]
    assert json.loads(call["function"]["arguments"]) == calls_of(whole)[0][1]


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"tool_choice": "any"}, "tool_choice='any': expected 'auto', 'none', 'required' or"),
    ({"tool_choice": {"type": "function"}}, "tool_choice=.*expected 'auto', 'none', 'required' or"),
    (
        {"tool_choice": {"type": "function", "function": {"name": "later"}}},
        r"tool_choice.function.name='later': expected one of the offered tools, \['now', 'weath",
    ),
    ({"tool_choice": "required", "tools": []}, "tool_choice='required'.*without tools"),
    ({"tool_choice": "required", "stop": ["x"]}, "stop=.*none with tool_choice"),
    ({"tool_choice": "required", "min_tokens": 3}, "min_tokens=3: expected 0 with tool_choice"),
    ({"parallel_tool_calls": "no"}, "parallel_tool_calls='no': expected true or false"),
    (
        {
            "tool_choice": "required",
            "tools": [{"function": {"name": "f", "parameters": {"type": "string"}}}],
        },
        r"tools\[0\].function.parameters=.*a JSON schema of an object",
    ),
    (
        {"tool_choice": "required", "tools": [{"function": {"name": 'a"b'}}]},
        r"tools\[0\].function.name=.*letters, digits",
    ),
    (
        {
            "tool_choice": "required",
            "tools": [
                {
                    "function": {
                        "name": "f",
                        "parameters": {"properties": {"a": {"type": "array", "maxItems": 10**6}}},
                    }
                }
            ],
        },
        r"tools\[0\].function.parameters.*maxItems=1000000",
    ),
    (
        {"tool_choice": "required", "tools": [{"function": {"name": f"f{n}"}} for n in range(130)]},
        "tools.*at most 128",
    ),
]


@pytest.mark.parametrize(("fields", "message"), REFUSED)
def test_what_cannot_be_forced_is_refused(model: Any, fields: dict[str, Any], message: str) -> None:
    with pytest.raises(MlflowException, match=message) as caught:
        model.predict(None, {**ASKED, **fields})
    assert caught.value.get_http_status_code() == 400


def test_a_template_without_tools_says_so(fp32: Any) -> None:
    with pytest.raises(MlflowException, match="chat template has no tools"):
        fp32.predict(None, {**ASKED, "tool_choice": "required"})


BOTH = "".join(
    f'<tool_call>{{"name": "{name}", "arguments": {{}}}}</tool_call>' for name in ("now", "weather")
)


@pytest.fixture
def saying(smollm: Folders, tmp_path: Path) -> Iterator[SayingModel]:
    made = SayingModel()
    made.says = BOTH
    folder = with_tools(smollm.onnx("int4"), tmp_path / "folder", None)
    made.load_context(Context({"onnx-model": str(folder)}, {"name": NAME}))
    yield made
    made.close()


@pytest.mark.parametrize(
    ("fields", "count"),
    [
        ({}, 2),
        ({"parallel_tool_calls": True}, 2),
        ({"parallel_tool_calls": None}, 2),
        ({"parallel_tool_calls": False}, 1),
    ],
)
def test_calls_that_are_not_wanted_beside_another_are_left_out(
    saying: SayingModel, fields: dict[str, Any], count: int
) -> None:
    [answer] = saying.predict(None, {**ASKED, **fields})
    assert [name for name, _ in calls_of(answer)] == ["now", "weather"][:count]
    chunks = list(saying.predict_stream(None, {**ASKED, **fields}))
    [calls] = [
        chunk["choices"][0]["delta"]["tool_calls"]
        for chunk in chunks
        if "tool_calls" in chunk["choices"][0]["delta"]
    ]
    assert len(calls) == count


def test_reasoning_that_the_prompt_opens_is_closed_before_a_forced_call(
    smollm: Folders, tmp_path: Path
) -> None:
    folder = with_tools(smollm.onnx("int4"), tmp_path / "folder", None)
    template = (folder / "chat_template.jinja").read_text()
    opening = "<|im_start|>assistant\\n"
    assert opening in template or "<|im_start|>assistant\n" in template
    for text in (opening, "<|im_start|>assistant\n"):
        template = template.replace(text, f"{text}<think>")
    (folder / "chat_template.jinja").write_text(template)
    known = {**capabilities_of(folder), "template": template_of(folder)}
    (folder / CAPABILITIES).write_text(json.dumps(known))
    made = SayingModel()
    made.says = BOTH
    made.load_context(Context({"onnx-model": str(folder)}, {"name": NAME}))
    made.predict(None, {**ASKED, "tool_choice": "required"})
    made.predict(None, ASKED)
    forced, free = ("".join(map(made.tokenizer.decoder(), ids)) for ids in made.prompts)
    assert free.endswith("<think>")
    assert forced == f"{free}</think>\n\n"
    made.close()
