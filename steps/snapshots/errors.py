"""Errors of the snapshots room: each names what was wrong, where, and the cure."""

from steps.core.errors import StepError

LONGEST = 200  # characters of somebody else's message


class SnapshotError(StepError):
    """A checkpoint could not be fetched, kept or built.

    Args:
        field: dotted key of the config that the error is about, such as ``model.revision``.
        value: what it held.
        problem: what is wrong, in one clause.
        cure: what mends it: a command or an override.
    """

    def __init__(self, field: str, value: object, problem: str, cure: str) -> None:
        self.field, self.value, self.problem, self.cure = field, value, problem, cure
        super().__init__(f"{field}={value!r}: {problem}; {cure}")


class DamagedError(SnapshotError):
    """Bytes in the store are missing or are not the recorded ones."""


class HubUnreachableError(SnapshotError):
    """The hub gave no answer, which says nothing about the model: what is in the store may be
    used.
    """


def one_line(error: BaseException) -> str:
    """An error of somebody else's code as part of one line, cut where it goes on for long."""
    words = " ".join(str(error).split()) or "no detail"
    return f"{type(error).__name__}: {words if len(words) <= LONGEST else words[:LONGEST] + ' …'}"
