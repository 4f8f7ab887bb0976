"""A model card's front matter (the Hub's README.md): read for the licence and for what the model
was made from.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml


def card_licence(card: Path) -> str | None:
    """The ``license`` key of the card's YAML front matter, or None where there is no card, no front
    matter or no such key.
    """
    value = front_matter(card).get("license")
    return str(value) if value else None


def base_models(folder: Path) -> list[str]:
    """What a checkpoint says it was made from, best source first: PEFT's ``adapter_config.json``,
    then ``base_model`` of the card.
    """
    named_models: list[object] = []
    try:
        adapter = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
        named_models.append(
            adapter.get("base_model_name_or_path") if isinstance(adapter, dict) else None
        )
    except (OSError, ValueError):
        pass  # no adapter, or one that says nothing: the card may
    named = front_matter(folder / "README.md").get("base_model")
    named_models += named if isinstance(named, list) else [named]
    return [name for name in named_models if isinstance(name, str) and name]


def front_matter(card: Path) -> Mapping[str, Any]:
    """The card's YAML front matter; empty where there is no card or none that parses."""
    if not card.is_file():
        return {}
    text = card.read_text(encoding="utf-8", errors="replace")
    if not text.startswith("---"):
        return {}
    parts = text.split("\n---", 1)
    try:
        matter = yaml.safe_load(parts[0].removeprefix("---"))
    except yaml.YAMLError:
        return {}  # a card is prose by somebody else: one that does not parse states nothing
    return matter if isinstance(matter, dict) else {}
