"""The word that somebody may have meant, among those that are known."""

import difflib
from collections.abc import Iterable

ALIKE = 0.7  # difflib's ratio from which a word is suggested


def close(word: str, known: Iterable[str], many: int = 3, alike: float = ALIKE) -> list[str]:
    """Known words that look like ``word``, the nearest first.

    Args:
        word: as it was written.
        known: what would have been understood.
        many: most words that are returned.
        alike: least ratio of equal characters, 0 to 1.
    """
    return difflib.get_close_matches(word, sorted(known), n=many, cutoff=alike)


def hint(word: str, known: Iterable[str], many: int = 3, alike: float = ALIKE) -> str | None:
    """``did you mean a or b?``; None where nothing looks like the word."""
    found = close(word, known, many, alike)
    return f"did you mean {' or '.join(found)}?" if found else None
