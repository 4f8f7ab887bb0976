"""How wide text for people is: the terminal's width, and 80 columns in logs."""

from rich.console import Console

WIDTH = 80  # columns, where the output is not a terminal


def console(widest: int | None = None) -> Console:
    """A console on the standard output.

    Args:
        widest: columns that are used at most; None takes all of the terminal's.
    """
    found = Console(highlight=False)
    width = found.width if found.is_terminal else WIDTH
    return Console(highlight=False, width=min(width, widest) if widest else width)
