"""Searches of a tracking server that are read to their end."""

from typing import Any


def every_page(search: Any) -> list[Any]:
    """All that a search finds; MLflow's servers give at most some thousand results at once.

    Args:
        search: takes the token of a page, None for the first, and returns that page.
    """
    found: list[Any] = []
    token: str | None = None
    while True:
        page = search(token)
        found += page
        token = page.token
        if not token:
            return found
