"""An end that the user can mend."""


class StepError(RuntimeError):
    """A step cannot go on, and the message says why and what to do about it; shown without a traceback."""
