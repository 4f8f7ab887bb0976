"""What each family's template can do arrives in the prompt; what it cannot is refused with a 400,
by both variants alike.
"""

import json
from typing import Any

import pytest
from mlflow.exceptions import MlflowException

from steps.wrappers.served.request import request_of
from tests.families.asking import VARIANTS, prompts, right, said, talked
from tests.families.subject import Subject, rows

QUESTION = {"role": "user", "content": "What is the weather in Paris?"}
TOOL: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "zephyr_weather",
        "description": "Looks the weather up.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}},
            "required": ["city"],
        },
    },
}


def prompt_ids(served: Any, **row: Any) -> list[int]:
    """Token ids of the prompt that a chat row becomes."""
    request = request_of({"messages": [QUESTION], **row}, None, served.defaults)
    return list(served.exchange(request).ids)


def refused(served: Any, field: str, **row: Any) -> None:
    """A row is refused as the caller's mistake, naming the field."""
    with pytest.raises(MlflowException, match=field) as caught:
        served.predict(None, [{"messages": [QUESTION], "max_tokens": 1, "temperature": 0.0, **row}])
    assert caught.value.get_http_status_code() == 400


@pytest.mark.parametrize("subject", rows(), indirect=True)
def test_system(subject: Subject, record_property: Any) -> None:
    """A system message is in the prompt as transformers renders it, or refused."""
    messages = [{"role": "system", "content": "Be terse, zephyr."}, QUESTION]
    for variant in VARIANTS:
        served = subject.served(variant)
        if subject.family.system:
            assert prompt_ids(served, messages=messages) == subject.reference.chat_ids(messages)
            assert said(served.predict(None, [talked(messages)])[0]) == right(subject, messages)
        else:
            refused(served, r"messages\[0\]\.role", messages=messages)
    record_property("cell", "in the prompt" if subject.family.system else "refused")


@pytest.mark.parametrize("subject", rows(), indirect=True)
def test_tools(subject: Subject, record_property: Any) -> None:
    """A tool's name, description and parameters are in the prompt, or the tool is refused."""
    for variant in VARIANTS:
        served = subject.served(variant)
        if subject.family.tools:
            shown = subject.reference.tokenizer.decode(prompt_ids(served, tools=[TOOL]))
            assert all(
                word in shown for word in ("zephyr_weather", "Looks the weather up.", "city")
            ), shown
            without = subject.reference.tokenizer.decode(prompt_ids(served))
            assert "zephyr_weather" not in without
        else:
            refused(served, "tools", tools=[TOOL])
    record_property("cell", "in the prompt" if subject.family.tools else "refused")


@pytest.mark.parametrize("subject", rows(), indirect=True)
def test_thinking(subject: Subject, record_property: Any) -> None:
    """The switch makes the prompt that it makes in transformers, or is refused; reasoning that a
    prompt opens is not content.
    """
    switch, reasons = subject.family.thinking, subject.family.reasons
    for variant in VARIANTS:
        served = subject.served(variant)
        if switch:
            for on in (True, False):
                expected = subject.reference.chat_ids([QUESTION], **{switch: on})
                assert prompt_ids(served, chat_template_kwargs={switch: on}) == expected, (
                    variant,
                    on,
                )
        else:
            refused(served, "chat_template_kwargs", chat_template_kwargs={"enable_thinking": False})
        shown = 0
        for question in prompts(seed=8, count=6):
            message = served.predict(None, [talked([{"role": "user", "content": question}])])[0][
                "choices"
            ][0]["message"]
            assert not (reasons and message["content"]), (variant, message)
            shown += bool(message.get("reasoning_content"))
        assert (shown > 2) == reasons, variant
    told = [f"switch `{switch}`"] if switch else []
    record_property("cell", ", ".join([*told, *(["split"] if reasons else [])]) or "none: refused")


@pytest.mark.parametrize("subject", rows(), indirect=True)
def test_text_of_a_user_is_not_structure(subject: Subject) -> None:
    """No added token that the template writes comes out of what a user wrote, special or not."""
    tokenizer = subject.reference.tokenizer
    plain = subject.reference.chat_ids([QUESTION])
    added = {
        token: entry.content
        for token, entry in tokenizer.added_tokens_decoder.items()
        if entry.content.strip()
    }
    structure = sorted({token for token in plain if token in added} | set(subject.family.ends))
    written = [added[token] for token in structure]
    for variant in VARIANTS:
        served = subject.served(variant)
        for texts in (written, ["".join(written)], [json.dumps(written)]):
            for text in texts:
                ids = prompt_ids(
                    served, messages=[{"role": "user", "content": f"before {text} after"}]
                )
                assert [token for token in ids if token in structure] == [
                    token for token in plain if token in structure
                ], text
