"""Reasoning, template variables and special marks through predict and predict_stream."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from mlflow.exceptions import MlflowException

from tests.wrappers import template_shapes as shapes
from tests.wrappers.doubles import SayingModel
from tests.wrappers.subjects import NAME, Context, Folders, say

# unused special tokens
TAKEN = {
    "<repo_name>": "<think>",
    "<reponame>": "</think>",
    "<filename>": "[TOOL_CALLS]",
    "<file_sep>": "[ARGS]",
}
TURNS = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{% if m.reasoning_content %}<think>{{"
    " m.reasoning_content }}</think>{% endif %}{{ m.content }}<|im_end|>\n{% endfor %}{% if"
    " add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SWITCH = TURNS.replace(
    "assistant\n{% endif %}",
    "assistant\n{% if enable_thinking is false %}<think>\n\n</think>\n\n{% endif %}{% endif %}",
)
OPENED = TURNS.replace("assistant\n{% endif %}", "assistant\n<think>\n{% endif %}")
Open = Callable[..., SayingModel]


@pytest.fixture
def speaking(smollm: Folders, tmp_path: Path) -> Iterator[Open]:
    """Open the embedded model with a template, tags among its tokens, and something to say."""
    opened: list[SayingModel] = []

    def open_model(says: str, template: str, *, special: bool = True, **config: Any) -> SayingModel:
        folder = tmp_path / f"made_{len(opened)}"
        folder.mkdir()
        for file in smollm.onnx("int4").iterdir():
            if file.name not in ("chat_template.jinja", "capabilities.json"):
                (folder / file.name).symlink_to(file)
        (folder / "chat_template.jinja").write_text(template)
        for name in ("tokenizer.json", "tokenizer_config.json") if special else ():
            text = (folder / name).read_text("utf-8")
            (folder / name).unlink()
            for before, after in TAKEN.items():
                text = text.replace(json.dumps(before), json.dumps(after))
            (folder / name).write_text(text, "utf-8")
        model = SayingModel()
        model.says = says
        model.load_context(Context({"onnx-model": str(folder)}, {"name": NAME, **config}))
        opened.append(model)
        return model

    yield open_model
    for model in opened:
        model.close()


def joined(chunks: Iterator[Any], key: str) -> str:
    return "".join(
        chunk["choices"][0]["delta"].get(key, "") for chunk in chunks if chunk["choices"]
    )


@pytest.mark.parametrize("special", [True, False])
def test_reasoning_is_beside_the_content(speaking: Open, special: bool) -> None:
    model = speaking(
        "<think>\nThe sun STOP is high.\n</think>\n\nIt is noon.", SWITCH, special=special
    )
    row = say("What time is it?", max_tokens=100, stop=["STOP"])
    [answer] = model.predict(None, row)
    expected = {
        "role": "assistant",
        "content": "It is noon.",
        "reasoning_content": "The sun STOP is high.",
    }
    assert answer["choices"][0]["message"] == expected
    assert (
        0
        < answer["usage"]["completion_tokens_details"]["reasoning_tokens"]
        < answer["usage"]["completion_tokens"]
    )
    chunks = list(model.predict_stream(None, row))
    assert joined(iter(chunks), "reasoning_content") == expected["reasoning_content"]
    assert joined(iter(chunks), "content") == expected["content"]
    assert sum("reasoning_content" in chunk["choices"][0]["delta"] for chunk in chunks) > 2


def test_reasoning_that_the_prompt_opens(speaking: Open) -> None:
    model = speaking("The sun is high.</think>It is noon.", OPENED)
    message = model.predict(None, say("What time is it?", max_tokens=100))[0]["choices"][0][
        "message"
    ]
    assert message == {
        "role": "assistant",
        "content": "It is noon.",
        "reasoning_content": "The sun is high.",
    }
    answer = speaking("The sun is high", OPENED).predict(
        None, say("What time is it?", max_tokens=100)
    )[0]
    assert answer["choices"][0]["message"] == {
        "role": "assistant",
        "content": "",
        "reasoning_content": "The sun is high",
    }
    assert "<think>" in "".join(
        map(model.tokenizer.decoder(frozenset({"<think>"})), model.prompts[0])
    )


def test_what_is_said_at_once_has_no_reasoning(speaking: Open) -> None:
    [answer] = speaking("It is noon.", SWITCH).predict(
        None, say("What time is it?", max_tokens=100)
    )
    assert answer["choices"][0]["message"] == {"role": "assistant", "content": "It is noon."}
    assert answer["usage"]["completion_tokens_details"] == {"reasoning_tokens": 0}


def test_a_prompt_is_answered_with_the_text_as_it_is(speaking: Open) -> None:
    said = "<think>The sun.</think> It is noon."
    model = speaking(said, SWITCH, special=False)
    assert model.predict(None, {"prompt": "What time is it?", "max_tokens": 100}) == [said]
    assert (
        "".join(model.predict_stream(None, {"prompt": "What time is it?", "max_tokens": 100}))
        == said
    )


def test_a_grammar_leaves_no_room_for_reasoning(speaking: Open) -> None:
    said = '{"a": "<think>b</think>"}'
    grammar = {"type": "json_object"}
    [answer] = speaking(said, OPENED, special=False).predict(
        None, say("JSON", max_tokens=100, response_format=grammar)
    )
    assert answer["choices"][0]["message"] == {"role": "assistant", "content": said}


def test_special_marks_of_tool_calls_are_read_and_never_shown(speaking: Open) -> None:
    tools = [shapes.tool("now", zone="string")]
    template = "{% if tools %}{{ tools | tojson }}{% endif %}" + SWITCH
    said = 'Well. [TOOL_CALLS]now[ARGS]{"zone": "UTC"}'
    model = speaking(said, template)
    [choice] = model.predict(None, say("What time is it?", tools=tools, max_tokens=100))[0][
        "choices"
    ]
    assert (choice["finish_reason"], choice["message"]["content"]) == ("tool_calls", "Well.")
    assert choice["message"]["tool_calls"][0]["function"] == {
        "name": "now",
        "arguments": '{"zone": "UTC"}',
    }
    for row in (say("Hi", max_tokens=100), say("Hi", max_tokens=100, tools=[shapes.tool("other")])):
        content = model.predict(None, row)[0]["choices"][0]["message"]["content"]
        assert (
            content
            == joined(model.predict_stream(None, row), "content")
            == 'Well. now{"zone": "UTC"}'
        )


def test_reasoning_before_a_tool_call(speaking: Open) -> None:
    tools = [shapes.tool("now", zone="string")]
    template = "{% if tools %}{{ tools | tojson }}{% endif %}" + SWITCH
    model = speaking(
        '<think>I ask [TOOL_CALLS] for it.</think>\n\n[TOOL_CALLS]now[ARGS]{"zone": "UTC"}',
        template,
    )
    row = say("What time is it?", tools=tools, max_tokens=100)
    message = model.predict(None, row)[0]["choices"][0]["message"]
    assert message["content"] is None
    assert message["reasoning_content"].startswith("I ask")
    assert message["tool_calls"][0]["function"]["name"] == "now"
    deltas = [chunk["choices"][0]["delta"] for chunk in model.predict_stream(None, row)]
    assert [next(iter(delta), None) for delta in deltas if "reasoning_content" not in delta] == [
        "role",
        "tool_calls",
        None,
    ]


@pytest.mark.parametrize(
    "template",
    [shapes.NINE, shapes.ONE_CALL, shapes.OTHER_VARIABLE, shapes.SYSTEM_KEY, shapes.HERMES],
)
def test_our_own_calls_can_be_sent_back(speaking: Open, template: str) -> None:
    model = speaking(
        '{"name": "now", "parameters": {"zone": "A"}}; {"name": "now", "parameters": {"zone":'
        ' "B"}}',
        template,
        special=False,
    )
    row = say("What time is it?", tools=[shapes.tool("now", zone="string")], max_tokens=100)
    message = model.predict(None, row)[0]["choices"][0]["message"]
    assert len(message["tool_calls"]) == 2
    results = [
        {"role": "tool", "tool_call_id": call["id"], "content": f"result {number}"}
        for number, call in enumerate(message["tool_calls"])
    ]
    model.predict(None, {**row, "messages": [*row["messages"], message, *results]})
    prompt = "".join(map(model.tokenizer.decoder(), model.prompts[-1]))
    assert all(word in prompt for word in ('"A"', '"B"', "result 0", "result 1"))


def prompt_of(model: SayingModel, **settings: Any) -> str:
    model.predict(None, say("Hi", max_tokens=4, **settings))
    return "".join(map(model.tokenizer.decoder(frozenset(TAKEN.values())), model.prompts[-1]))


def test_variables_of_the_template_by_request_and_by_default(speaking: Open) -> None:
    model = speaking("It is noon.", SWITCH)
    for off in ({"chat_template_kwargs": {"enable_thinking": False}}, {"enable_thinking": False}):
        assert prompt_of(model, **off).endswith("</think>\n\n")
    assert not prompt_of(model).endswith("</think>\n\n")
    model = speaking("It is noon.", SWITCH, chat_template_kwargs={"enable_thinking": False})
    assert prompt_of(model).endswith("</think>\n\n")
    assert not prompt_of(model, enable_thinking=True).endswith("</think>\n\n")


def test_a_default_that_the_template_does_not_read_is_refused_at_load(speaking: Open) -> None:
    with pytest.raises(
        MlflowException,
        match=r"model_config.chat_template_kwargs.colour='red'.*\['enable_thinking'\]",
    ):
        speaking("It is noon.", SWITCH, chat_template_kwargs={"colour": "red"})


def test_reasoning_is_given_back_to_the_template(speaking: Open) -> None:
    model = speaking("It is noon.", SWITCH)
    said = {
        "role": "assistant",
        "content": "Noon.",
        "reasoning_content": "The sun is <think> high.",
    }
    model.predict(
        None,
        {
            **say("Hi", max_tokens=4),
            "messages": [*say("Hi")["messages"], said, *say("Sure?")["messages"]],
        },
    )
    ids = model.prompts[-1]
    text = "".join(map(model.tokenizer.decoder(frozenset(TAKEN.values())), ids))
    assert "<think>The sun is <think> high.</think>Noon." in text
    assert ids.count(model.tokenizer.encode("<think>")[0]) == 1
