"""Secrets and the home folder stay out of what is written on a run."""

from pathlib import Path

import pytest

from steps.pipeline.redaction import redact, redact_credentials, redact_leaves, redact_override


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


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("https://ghp_x@github.com/a/b", "https://***@github.com/a/b"),
        ("postgresql://u:p@ss@db/x", "postgresql://***@db/x"),
        ("ssh://git@github.com/a", "ssh://git@github.com/a"),
        ('["http://host","ada@example.org"]', '["http://host","ada@example.org"]'),
    ],
)
def test_credentials_of_urls(text: str, expected: str) -> None:
    assert redact_credentials(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("/mnt/root/store", "/mnt/root/store"),
        ("sqlite:////root/mlflow.db", "sqlite:///~/mlflow.db"),
        ("in /root.", "in ~."),
        ("/root-backup /root.old /rooted", "/root-backup /root.old /rooted"),
    ],
)
def test_only_the_home_folder_itself_is_replaced(text: str, expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "home", lambda: Path("/root"))
    assert redact(text) == expected


def test_leaf_by_leaf_so_that_no_syntax_breaks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "because")
    assert redact_leaves({"reason": "because it", "more": ["because", 1, None]}) == {"reason": "*** it", "more": ["***", 1, None]}


def test_a_home_folder_in_an_override_stays_readable(monkeypatch: pytest.MonkeyPatch) -> None:
    from hydra.core.override_parser.overrides_parser import OverridesParser

    monkeypatch.setattr(Path, "home", lambda: Path("/home/ada"))
    for word in ("evaluate.pack=/home/ada/my-pack", "evaluate.pack='/home/ada/my pack'"):
        shown = redact_override(word)
        assert str(OverridesParser.create().parse_override(shown).value()).startswith("~/my")
