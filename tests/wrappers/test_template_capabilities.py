"""What a template can do is told by rendering it, whatever its name and its words."""

import json
import pickle
from pathlib import Path
from typing import Any

import pytest

from steps.wrappers.served.conversation import Conversations
from steps.wrappers.served.limits import CAPABILITIES
from steps.wrappers.served.template import ChatTemplate
from steps.wrappers.served.template_capabilities import TemplateCapabilities
from tests.wrappers import template_shapes as shapes

FOUND: list[tuple[str, str, dict[str, Any]]] = [
    (
        "turns",
        shapes.TURNS,
        {
            "system_role": True,
            "tools": None,
            "tool_calls": None,
            "tool_results": True,
            "thinking": None,
        },
    ),
    ("raises", shapes.NO_SYSTEM_RAISES, {"system_role": False}),
    (
        "drops",
        shapes.NO_SYSTEM_DROPS,
        {"system_role": False, "tool_results": False, "turn_end": "</s>"},
    ),
    ("folds", shapes.SYSTEM_FOLDED, {"system_role": True}),
    (
        "hermes",
        shapes.HERMES,
        {
            "tools.where": "variable",
            "tools.name": "tools",
            "tool_calls.arguments": "mapping",
            "tool_calls.ids": "any",
        },
    ),
    (
        "other",
        shapes.OTHER_VARIABLE,
        {"tools.name": "xml_tools", "tool_calls.arguments": "content", "variables": []},
    ),
    ("key", shapes.SYSTEM_KEY, {"tools.where": "system", "tools.text": True}),
    ("key_list", shapes.SYSTEM_KEY_LIST, {"tools.where": "system", "tools.text": False}),
    ("needed", shapes.SYSTEM_NEEDED, {"tools.where": "variable", "tools.needs_system": True}),
    (
        "nine",
        shapes.NINE,
        {
            "tool_calls.ids": "nine",
            "tool_calls.beside_text": False,
            "tool_results": True,
            "system_role": False,
        },
    ),
    (
        "long",
        shapes.NINE.replace("length != 9", "length < 9"),
        {"tool_calls.ids": "long", "tool_calls.parallel": True},
    ),
    ("one_call", shapes.ONE_CALL, {"tool_calls.parallel": False}),
    ("several", shapes.HERMES, {"tool_calls.parallel": True, "tool_calls.beside_text": True}),
    ("text", shapes.TEXT_ARGUMENTS, {"tool_calls.arguments": "text"}),
    ("printed", shapes.PRINTED_ARGUMENTS, {"tool_calls.arguments": "text"}),
    (
        "switch",
        shapes.SWITCH,
        {
            "thinking.switch": "enable_thinking",
            "thinking.default": True,
            "thinking.opening": "<think>",
        },
    ),
    (
        "off",
        shapes.SWITCH_OFF_BY_DEFAULT,
        {"thinking.switch": "thinking", "thinking.default": False, "thinking.closing": "</think>"},
    ),
    (
        "by_tag",
        shapes.SWITCH_BY_TAG,
        {"thinking.opening": "<think>", "thinking.closing": "</think>", "thinking.opens": ["true"]},
    ),
    (
        "opened",
        shapes.OPENED,
        {
            "thinking.switch": None,
            "thinking.opening": "<think>",
            "thinking.opens": ["default"],
            "thinking.field": None,
        },
    ),
    (
        "field",
        shapes.REASONING_FIELD,
        {
            "thinking.field": "reasoning_content",
            "thinking.opening": "[THINK]",
            "thinking.closing": "[/THINK]",
        },
    ),
    (
        "other_field",
        shapes.OTHER_FIELD,
        {"thinking.field": "thinking", "thinking.opening": "[think]"},
    ),
    (
        "cut",
        shapes.CUT_ONLY,
        {"thinking.opening": "<think>", "thinking.closing": "</think>", "thinking.opens": []},
    ),
    ("macros", shapes.MACROS, {"system_role": True, "tool_results": False, "thinking": None}),
    ("broken", "{% if %}", {"system_role": False, "tools": None}),
]


def looked_up(values: Any, path: str) -> Any:
    for key in path.split("."):
        values = values[key]
    return values


@pytest.mark.parametrize(("name", "source", "expected"), FOUND, ids=[name for name, _, _ in FOUND])
def test_found_by_rendering(
    tmp_path: Path,
    name: str,  # noqa: ARG001
    source: str,
    expected: dict[str, Any],
) -> None:
    can = TemplateCapabilities.of(ChatTemplate(shapes.checkpoint(tmp_path, source)))
    values = json.loads(json.dumps(can.to_json()))
    assert {path: looked_up(values, path) for path in expected} == expected
    assert TemplateCapabilities.from_json(values) == can


def test_words_alone_are_no_capability(tmp_path: Path) -> None:
    source = (
        "{# tools, tool_calls, enable_thinking, <think> and </think> #}"
        + shapes.TURNS
        + "{% if tools and false %}{{ tools }}{% endif %}"
    )
    can = TemplateCapabilities.of(ChatTemplate(shapes.checkpoint(tmp_path, source)))
    assert (can.tools, can.tool_calls, can.thinking) == (None, None, None)


def test_tags_that_only_the_tokenizer_knows(tmp_path: Path) -> None:
    folder = shapes.checkpoint(tmp_path, shapes.TURNS, added=("<think>", "</think>", "<table>"))
    can = TemplateCapabilities.of(ChatTemplate(folder))
    assert can.thinking is not None
    assert (can.thinking.opening, can.thinking.closing, can.thinking.switch) == (
        "<think>",
        "</think>",
        None,
    )


def test_structure_is_what_the_template_writes_and_is_not_special(tmp_path: Path) -> None:
    added = (
        "<\uff5cUser\uff5c>",
        "<\uff5cAssistant\uff5c>",
        "<\uff5cend\uff5c>",
        "<think>",
        "</think>",
        "<table>",
        "\n\n",
        "<tool_call>",
    )
    can = TemplateCapabilities.of(
        ChatTemplate(shapes.checkpoint(tmp_path, shapes.OPENED, added=added))
    )
    assert set(can.structure) == set(added[:5])
    assert can.turn_end == "<\uff5cend\uff5c>"


def test_a_developer_is_known_where_the_template_knows_the_role(tmp_path: Path) -> None:
    knows = shapes.TURNS.replace(
        "{{ m.role }}", "{{ 'policy' if m.role == 'developer' else m.role }}"
    )
    assert TemplateCapabilities.of(
        ChatTemplate(shapes.checkpoint(tmp_path / "a", knows))
    ).developer_role
    assert not TemplateCapabilities.of(
        ChatTemplate(shapes.checkpoint(tmp_path / "b", shapes.TURNS))
    ).developer_role


def test_a_folder_without_a_template_can_do_nothing(tmp_path: Path) -> None:
    can = TemplateCapabilities.of(ChatTemplate(shapes.checkpoint(tmp_path)))
    assert can == TemplateCapabilities()


def test_what_was_found_at_logging_is_read_and_what_another_version_wrote_is_found_anew(
    tmp_path: Path,
) -> None:
    folder = shapes.checkpoint(tmp_path, shapes.HERMES)
    can = Conversations.of_folder(folder).capabilities
    kept = {**can.to_json(), "turn_end": "<kept>"}
    (folder / CAPABILITIES).write_text(json.dumps({"template": kept}))
    assert Conversations.of_folder(folder).capabilities.turn_end == "<kept>"
    (folder / CAPABILITIES).write_text(json.dumps({"template": {**kept, "unheard_of": 1}}))
    assert Conversations.of_folder(folder).capabilities == can
    (folder / CAPABILITIES).write_text(json.dumps({"limits": {}}))
    assert Conversations.of_folder(folder).capabilities == can


def test_templates_are_found_wherever_they_are_kept(tmp_path: Path) -> None:
    def names(folder: Path) -> dict[str, str]:
        return ChatTemplate(folder).sources

    listed = [{"name": "default", "template": "D"}, {"name": "tool_use", "template": "T"}]
    assert names(shapes.checkpoint(tmp_path / "list", chat_template=listed)) == {
        "default": "D",
        "tool_use": "T",
    }
    assert names(
        shapes.checkpoint(tmp_path / "dict", chat_template={"default": "D", "rag": "R"})
    ) == {"default": "D", "rag": "R"}
    assert names(shapes.checkpoint(tmp_path / "text", chat_template="D")) == {"default": "D"}
    files = shapes.checkpoint(tmp_path / "files", "F", chat_template="D")
    assert names(files) == {"default": "F"}
    (files / "additional_chat_templates").mkdir()
    (files / "additional_chat_templates" / "tool_use.jinja").write_text("T")
    assert names(files) == {"default": "F", "tool_use": "T"}
    alone = shapes.checkpoint(tmp_path / "json")
    (alone / "chat_template.json").write_text(json.dumps({"chat_template": "J"}))
    assert names(alone) == {"default": "J"}


def test_a_template_is_pickled_without_what_was_compiled(tmp_path: Path) -> None:
    template = ChatTemplate(shapes.checkpoint(tmp_path, shapes.TURNS))
    expected = template.render([{"role": "user", "content": "hi"}])
    assert (
        pickle.loads(pickle.dumps(template)).render([{"role": "user", "content": "hi"}]) == expected
    )
