"""Variables for the chat template in a request: what the template reads, within bounds, or a
refusal that names them.
"""

from typing import Any

import pytest
from mlflow.exceptions import MlflowException

from steps.wrappers.served.request import Defaults, Request, request_of
from steps.wrappers.served.template_capabilities import TemplateCapabilities
from steps.wrappers.served.template_thinking import Thinking

HELLO = [{"role": "user", "content": "Hello"}]
READS = TemplateCapabilities(
    variables=("thinking", "date_string"),
    thinking=Thinking("thinking", False, "<think>", "</think>"),
)
DEEP: Any = 1
for _ in range(70):
    DEEP = [DEEP]


def read(
    capabilities: TemplateCapabilities | None = READS,
    defaults: dict[str, Any] | None = None,
    **row: Any,
) -> Request:
    return request_of(
        {"messages": HELLO, **row},
        None,
        Defaults(capabilities=capabilities, template_kwargs=defaults or {}),
    )


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"chat_template_kwargs": "thinking"}, "chat_template_kwargs='thinking': expected a mapping"),
    (
        {"chat_template_kwargs": {"colour": 1}},
        r"chat_template_kwargs.colour=1: expected one of the names .*\['thinking', 'date_string'\]",
    ),
    (
        {"chat_template_kwargs": {"messages": []}},
        "chat_template_kwargs.messages=.*the server's to set",
    ),
    ({"chat_template_kwargs": {"tools": []}}, "the server's to set"),
    ({"chat_template_kwargs": {"add_generation_prompt": False}}, "the server's to set"),
    ({"chat_template_kwargs": {"bos_token": "x"}}, "the server's to set"),
    ({"chat_template_kwargs": {"thinking": float("nan")}}, "a JSON value"),
    ({"chat_template_kwargs": {"thinking": DEEP}}, "64 values within values"),
    ({"chat_template_kwargs": {"date_string": "a\x00"}}, "without NUL"),
    ({"chat_template_kwargs": {"date_string": "a" * 4_000_001}}, "at most 4000000 characters"),
    ({"enable_thinking": "yes"}, "enable_thinking='yes': expected true or false"),
    (
        {"enable_thinking": True, "chat_template_kwargs": {"thinking": False}},
        "the same as chat_template_kwargs.thinking, which is False",
    ),
]


@pytest.mark.parametrize(("row", "message"), REFUSED)
def test_refusal_names_the_variable(row: dict[str, Any], message: str) -> None:
    with pytest.raises(MlflowException, match=message) as caught:
        read(**row)
    assert caught.value.get_http_status_code() == 400


def test_a_switch_that_the_template_lacks_is_refused() -> None:
    for capabilities in (
        TemplateCapabilities(),
        TemplateCapabilities(thinking=Thinking(None, None, "<think>", "</think>")),
    ):
        with pytest.raises(MlflowException, match="no switch for reasoning"):
            read(capabilities, enable_thinking=False)
    with pytest.raises(MlflowException, match="expected none, as this template reads none"):
        read(TemplateCapabilities(), chat_template_kwargs={"enable_thinking": False})


def test_the_short_form_sets_the_templates_own_switch() -> None:
    assert read(enable_thinking=True).template_kwargs == {"thinking": True}
    assert (
        read(
            enable_thinking=True, chat_template_kwargs={"thinking": True, "date_string": "x"}
        ).template_kwargs["date_string"]
        == "x"
    )


def test_a_request_goes_before_the_default() -> None:
    defaults = {"thinking": False, "date_string": "today"}
    assert read(defaults=defaults).template_kwargs == defaults
    assert read(defaults=defaults, enable_thinking=True).template_kwargs == {
        "thinking": True,
        "date_string": "today",
    }


@pytest.mark.parametrize(
    "row", [{"enable_thinking": True}, {"chat_template_kwargs": {"thinking": True}}]
)
def test_a_prompt_is_templated_already(row: dict[str, Any]) -> None:
    with pytest.raises(MlflowException, match="nothing with a prompt, which is templated already"):
        request_of({"prompt": "a", **row}, None, Defaults(capabilities=READS))
    assert (
        request_of(
            {"prompt": "a"}, None, Defaults(capabilities=READS, template_kwargs={"thinking": True})
        ).template_kwargs
        == {}
    )


def test_reasoning_belongs_to_assistants() -> None:
    said = {"role": "assistant", "content": "Noon.", "reasoning_content": "The sun is high."}
    assert (read(messages=[*HELLO, said]).messages or ())[1] == said
    with pytest.raises(
        MlflowException,
        match=(
            r"messages\[0\].reasoning_content='a': expected reasoning in assistant messages alone"
        ),
    ):
        read(messages=[{"role": "user", "content": "Hello", "reasoning_content": "a"}])
    with pytest.raises(
        MlflowException, match=r"messages\[0\].reasoning_content=3: expected a string"
    ):
        read(messages=[{"role": "assistant", "content": "Hello", "reasoning_content": 3}])
