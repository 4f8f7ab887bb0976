"""The licence that a model card states."""

from pathlib import Path

import pytest

from steps.snapshots.card import card_licence


@pytest.mark.parametrize(
    ("text", "licence"),
    [
        ("---\nlicense: mit\ntags:\n- text\n---\n# A model", "mit"),
        ("---\ntags: [text]\n---\n# A model", None),
        ("# A model\n\n---\nlicense: mit\n---\n", None),
        ("---\nlicense: [unclosed\n---\n", None),
        ("---\n- a list\n---\n", None),
        ("---\nlicense: apache-2.0\n", "apache-2.0"),
        ("", None),
    ],
)
def test_licence(text: str, licence: str | None, tmp_path: Path) -> None:
    card = tmp_path / "README.md"
    card.write_text(text)
    assert card_licence(card) == licence


def test_no_card(tmp_path: Path) -> None:
    assert card_licence(tmp_path / "README.md") is None
