"""Which aliases move when one does. Pure: what is, what is wanted, what must change."""

from collections.abc import Mapping

from steps.registry.aliases import challenger_of, previous_of
from steps.registry.record import Move


def succeed(
    current: Mapping[str, int], alias: str, after: int, runner_up: int | None = None
) -> dict[str, int | None]:
    """Aliases once ``alias`` points at ``after``.

    What it pointed at before becomes the previous one. A challenger that wins is not a challenger
    any more: the version it beat takes its place, if there is one, unless the policy named a
    runner-up.

    Args:
        current: alias to version, now.
        alias: what moves, such as ``champion``.
        after: the version it is to point at.
        runner_up: the version that came second, where a ranking was made.
    """
    before = current.get(alias)
    wanted: dict[str, int | None] = {alias: after}
    if before is not None and before != after:
        wanted[previous_of(alias)] = before
    challenger = challenger_of(alias)
    if runner_up is not None and runner_up != after:
        wanted[challenger] = runner_up
    elif current.get(challenger) == after:
        wanted[challenger] = None if before == after else before
    return wanted


def moves(current: Mapping[str, int], wanted: Mapping[str, int | None]) -> tuple[Move, ...]:
    """What has to change for ``wanted`` to hold."""
    return tuple(
        Move(alias, current.get(alias), after)
        for alias, after in wanted.items()
        if current.get(alias) != after
    )
