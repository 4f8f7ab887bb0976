"""Ends of a step that are no bug."""


class StepError(RuntimeError):
    """A step cannot go on, and the message says why and what to do about it; shown without a traceback."""


class Terminated(KeyboardInterrupt):
    """SIGTERM arrived. MLflow cancels the child that it waits for on KeyboardInterrupt, and on nothing else."""
