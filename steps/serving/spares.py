"""Deployments that no alias names any more, for a moment."""

import asyncio
from collections.abc import Callable

from steps.serving.deployment import Deployment

SECONDS = 3.0  # that one is kept for another alias, which is moved at the same time


class Spares:
    """Keeps what an alias left, so that aliases that are swapped load nothing.

    Args:
        serves: whether an alias serves a deployment.
    """

    def __init__(self, serves: Callable[[Deployment], bool]) -> None:
        self._serves = serves
        self._kept: list[Deployment] = []

    def of(self, name: str) -> list[Deployment]:
        """The spare deployments of a registered model."""
        return [one for one in self._kept if one.version.name == name]

    async def retire(self, deployment: Deployment) -> None:
        """End a deployment, once its answers are whole, unless an alias takes it within a
        moment.
        """
        self._kept.append(deployment)
        try:
            await asyncio.sleep(SECONDS)
        except asyncio.CancelledError:
            await deployment.close()
            raise
        finally:
            self._kept.remove(deployment)
        if not self._serves(deployment):
            await deployment.drain()
