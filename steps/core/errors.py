"""The errors that end a step in one line, without a traceback."""


class StepError(RuntimeError):
    """A step cannot go on; the message says why and what to do about it."""


class ConfigError(ValueError):
    """A field of the composed config holds a value that it must not hold.

    Args:
        field: dotted key as the user writes it, such as ``evaluate.max_new_tokens``.
        value: what was given.
        expected: what would be accepted.
        cure: a command or an override that mends it, when there is one.
    """

    def __init__(self, field: str, value: object, expected: str, cure: str | None = None) -> None:
        self.field, self.value, self.expected, self.cure = field, value, expected, cure
        message = f"{field}={value!r}: expected {expected}"
        super().__init__(f"{message}; {cure}" if cure else message)


class Terminated(KeyboardInterrupt):
    """SIGTERM arrived. MLflow cancels the child that it waits for on KeyboardInterrupt, and on
    nothing else.
    """
