"""What a version of a registered model points at: a logged model, a version that it is a copy of, or something older than both."""

import re
from collections.abc import Callable

LOGGED_MODEL = re.compile(r"models:/(?P<id>m-[^/@]+)")
VERSION = re.compile(r"models:/(?P<name>[^/@]+)/(?P<number>\d+)")
MOST_COPIES = 16  # copies of copies that are followed; a version cannot be older than what it is a copy of, so this never ends a true chain


def logged_model_of(source: str, source_of: Callable[[str, int], str | None]) -> str | None:
    """Id of the logged model that a version's source leads to, through copies made by ``copy_model_version``.

    Args:
        source: of the version, such as ``models:/m-…`` or, for a copy, ``models:/<name>/<number>``.
        source_of: the source of another version; None where there is none.

    Returns:
        ``m-…``, or None where the source leads to a run's artifacts, a folder, or a version that is gone.
    """
    at: str | None = source
    for _ in range(MOST_COPIES):
        if at is None:
            return None
        if found := LOGGED_MODEL.fullmatch(at):
            return found["id"]
        copied = VERSION.fullmatch(at)
        if copied is None:
            return None
        at = source_of(copied["name"], int(copied["number"]))
    return None
