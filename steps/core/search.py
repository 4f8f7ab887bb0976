"""MLflow searches: conditions with the value quoted, and results read to their end."""

from typing import Any

from steps.core.errors import StepError


def equals(key: str, value: str) -> str:
    """``key = 'value'`` in MLflow's filter language, which has two kinds of quotes and no escape
    for either.

    Args:
        key: as the language writes it, such as ``name`` or ``tags.`slm.step` ``.
        value: any text without one of the two kinds of quotes.

    Raises:
        StepError: the value holds both kinds of quotes, or a control character, so that no search
            can name it.
    """
    quote = '"' if "'" in value else "'"
    if quote in value or not value.isprintable():
        raise StepError(
            f"{key}={value!r}: MLflow's search cannot name this text; expected printable text"
            " without both kinds of quotes"
        )
    return f"{key} = {quote}{value}{quote}"


def every_page(search: Any) -> list[Any]:
    """All that a search finds; MLflow's servers give at most some thousand results at once.

    Args:
        search: takes the token of a page, None for the first, and returns that page.
    """
    results: list[Any] = []
    token: str | None = None
    while True:
        page = search(token)
        results += page
        token = page.token
        if not token:
            return results
