"""Tools through predict and predict_stream: offered, and read out of what the model says."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from mlflow.exceptions import MlflowException

from steps.wrappers.capabilities import capabilities_of, template_of
from steps.wrappers.served.limits import CAPABILITIES
from tests.wrappers.doubles import SayingModel
from tests.wrappers.subjects import NAME, Context, Folders, say, text

TOOL = {
    "type": "function",
    "function": {"name": "now", "parameters": {"type": "object", "properties": {}}},
}
CALL = 'I look it up.\n<tool_call>{"name": "now", "arguments": {"zone": "UTC"}}</tool_call>'


@pytest.fixture
def folder(smollm: Folders, tmp_path: Path) -> Path:
    """The embedded model with a template that speaks of tools."""
    made = tmp_path / "with_tools"
    made.mkdir()
    folder = smollm.onnx("int4")
    for file in folder.iterdir():
        if file.name not in ("chat_template.jinja", CAPABILITIES):
            (made / file.name).symlink_to(file)
    template = (folder / "chat_template.jinja").read_text()
    (made / "chat_template.jinja").write_text(
        "{% if tools %}{{ tools | tojson }}{% endif %}" + template
    )
    (made / CAPABILITIES).write_text(
        json.dumps({**capabilities_of(folder), "template": template_of(made)})
    )
    return made


@pytest.fixture
def saying(folder: Path) -> Iterator[SayingModel]:
    model = SayingModel()
    model.says = CALL
    model.load_context(Context({"onnx-model": str(folder)}, {"name": NAME}))
    yield model
    model.close()


ROW = say("What time is it?", tools=[TOOL], max_tokens=100)


def test_tool_calls_come_back_parsed(saying: SayingModel) -> None:
    [answer] = saying.predict(None, ROW)
    [choice] = answer["choices"]
    assert choice["finish_reason"] == "tool_calls"
    assert choice["message"]["content"] == "I look it up."
    [call] = choice["message"]["tool_calls"]
    assert (call["type"], call["function"]) == (
        "function",
        {"name": "now", "arguments": '{"zone": "UTC"}'},
    )


def test_tool_calls_are_streamed_whole_and_text_before_them_at_once(saying: SayingModel) -> None:
    deltas = [chunk["choices"][0] for chunk in saying.predict_stream(None, ROW)]
    kinds = [sorted(choice["delta"]) for choice in deltas]
    assert kinds == [["content", "role"], *([["content"]] * (len(kinds) - 3)), ["tool_calls"], []]
    pieces = [choice["delta"]["content"] for choice in deltas[1:-2]]
    assert (len(pieces) > 1, "".join(pieces)) == (True, "I look it up.")
    assert deltas[-2]["delta"]["tool_calls"][0]["function"]["name"] == "now"
    assert deltas[-1]["finish_reason"] == "tool_calls"


def test_the_template_is_given_the_tools(saying: SayingModel) -> None:
    saying.predict(None, ROW)
    decode = saying.tokenizer.decoder()
    assert '"name": "now"' in "".join(decode(token) for token in saying.prompts[0])


@pytest.mark.parametrize(
    "row",
    [
        say("Hi", max_tokens=100),
        {**ROW, "tools": [{"function": {"name": "other"}}]},
        {**ROW, "tool_choice": "none"},
    ],
)
def test_a_tool_that_was_not_offered_is_text(saying: SayingModel, row: dict[str, Any]) -> None:
    [choice] = saying.predict(None, row)[0]["choices"]
    assert (choice["message"], choice["finish_reason"]) == (
        {"role": "assistant", "content": CALL},
        "stop",
    )
    pieces = [
        chunk["choices"][0]["delta"].get("content", "")
        for chunk in saying.predict_stream(None, row)
    ]
    assert "".join(pieces) == CALL


def test_tools_without_a_template_for_them_are_refused(fp32: Any) -> None:
    with pytest.raises(MlflowException, match="chat template has no tools"):
        fp32.predict(None, say("Hello", tools=[TOOL]))
    assert text(fp32.predict(None, say("Hello", tools=[TOOL], tool_choice="none"))[0])
