"""Conditions of MLflow searches with the value quoted, so that no value can end the quotes or add a condition."""

from steps.pipeline.errors import StepError


def equals(key: str, value: str) -> str:
    """``key = 'value'`` in MLflow's filter language, which has two kinds of quotes and no escape for either.

    Args:
        key: as the language writes it, such as ``name`` or ``tags.`slm.step` ``.
        value: any text without one of the two kinds of quotes.

    Raises:
        StepError: the value holds both kinds of quotes, or a control character, so that no search can name it.
    """
    quote = '"' if "'" in value else "'"
    if quote in value or not value.isprintable():
        raise StepError(f"{key}={value!r}: MLflow's search cannot name this text; expected printable text without both kinds of quotes")
    return f"{key} = {quote}{value}{quote}"
