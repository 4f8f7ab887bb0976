"""What is typed in the terminal chat, and what the model is asked."""

import builtins
from collections.abc import Iterator
from typing import Any

import pytest

from steps.chat import converse


class Echo:
    """A model that says how many messages it was given."""

    def __init__(self) -> None:
        self.asked: list[list[str]] = []

    def predict_stream(self, row: dict[str, Any]) -> Iterator[dict[str, Any]]:
        self.asked.append([message["content"] for message in row["messages"]])
        yield {"choices": [{"delta": {"content": f"{len(row['messages'])} "}}]}
        yield {"choices": [{"delta": {"content": "messages"}}], "usage": {"completion_tokens": 2}}


def test_a_conversation_grows_and_commands_do_not_reach_the_model(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = iter(["Hello", "/help", "/model", "/usr/bin is a folder?", "/new", "Again", "/quit"])
    monkeypatch.setattr(builtins, "input", lambda _: next(words))
    model = Echo()
    converse(model, [{"role": "system", "content": "Be brief."}], 8)
    assert model.asked == [
        ["Be brief.", "Hello"],
        ["Be brief.", "Hello", "2 messages", "/usr/bin is a folder?"],
        ["Be brief.", "Again"],
    ]
    printed = capsys.readouterr()
    assert "4 messages" in printed.out
    assert "/model is not a command: /new begins" in printed.err
    assert "tokens/s" in printed.err
