"""A registry whose process dies, or whose answers are lost, at a call of choice."""

from collections.abc import Callable
from typing import TypeVar

from steps.registry.client import RegistryClient

T = TypeVar("T")


class KilledError(BaseException):
    """The process ends here: not an ``Exception``, so that nothing between here and the test can
    tidy up.
    """


class FaultyClient(RegistryClient):
    """Counts the calls to the server and breaks at one of them.

    Args:
        at: number of the call, from 1; 0 breaks nothing.
        fault: ``kill`` ends the process before the call; ``lost`` lets the call happen and loses
            the answer; ``refused`` never lets it reach the server.
    """

    def __init__(self, at: int = 0, fault: str = "kill", retry_seconds: float = 20.0) -> None:
        super().__init__(retry_seconds)
        self.at, self.fault, self.calls = at, fault, 0
        self.made: list[str] = []

    def attempt(self, what: str, call: Callable[[], T]) -> T:
        from mlflow.exceptions import MlflowException

        self.calls += 1
        self.made.append(what)
        if self.calls != self.at:
            return super().attempt(what, call)
        if self.fault == "kill":
            raise KilledError(what)
        if self.fault == "lost":
            super().attempt(what, call)
        raise MlflowException("API request failed with exception: connection reset by peer")
