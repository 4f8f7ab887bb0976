"""Progress where there is no terminal: a line now and then, with the time that is left."""

import logging

import pytest

from steps.evaluation import progress
from steps.evaluation.progress import Display


def test_lines_say_what_is_done_and_how_long_it_takes(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(progress, "LINE_SECONDS", 0.0)
    with caplog.at_level(logging.INFO, logger=progress.log.name), Display(4.0) as display:
        display.say("load one")
        for _ in range(3):
            display.advance(1.0)
        display.advance(9.0)  # the weights are guesses: there is never more than all
    said = [record.getMessage() for record in caplog.records]
    assert said[0] == "load one"
    assert said[-1] == "load one (the evaluation is 100 % done, about 0 s remain)"
    assert any(line.startswith("load one (the evaluation is 75 % done, about ") for line in said)
