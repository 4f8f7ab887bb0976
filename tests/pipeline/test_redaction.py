"""Secrets and the home folder stay out of what is written on a run."""

from pathlib import Path

import pytest

from steps.pipeline.redaction import redact


def test_secrets_and_home_are_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_0123456789abcdef")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "correct horse")
    monkeypatch.setattr(Path, "home", lambda: Path("/home/ada"))
    text = "token hf_0123456789abcdef, https://ada:correct horse@x, http://u:p4ss@host/x, /home/ada/models, /home/adam/models"
    assert redact(text) == "token ***, https://ada:***@x, http://***@host/x, ~/models, /home/adam/models"


def test_other_text_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHORT_TOKEN", "abc")
    text = "runs:/0123/report.json models:/m-1 sqlite:////data/mlflow.db abc user@example.org"
    assert redact(text) == text
