"""A model card's front matter (the Hub's README.md): read for the licence only."""

from pathlib import Path


def card_licence(card: Path) -> str | None:
    """The ``license`` key of the card's YAML front matter, or None where there is no card, no front matter or no such key."""
    import yaml

    if not card.is_file():
        return None
    text = card.read_text(encoding="utf-8", errors="replace")
    if not text.startswith("---"):
        return None
    parts = text.split("\n---", 1)
    try:
        matter = yaml.safe_load(parts[0].removeprefix("---"))
    except yaml.YAMLError:
        return None  # a card is prose by somebody else: one that does not parse states no licence
    value = matter.get("license") if isinstance(matter, dict) else None
    return str(value) if value else None
