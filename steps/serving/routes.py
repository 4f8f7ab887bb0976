"""Which alias of which model a request goes to."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from steps.config.serve import ServeConfig
from steps.core.errors import ConfigError
from steps.serving.deployment import Deployment
from steps.serving.errors import ApiError, shown

BUCKETS = 10_000  # a request's hash is one of so many numbers


@dataclass(eq=False)
class Route:
    """An alias of a registered model, and what is served under it just now.

    Attributes:
        name: of the registered model.
        alias: that is followed.
        share: of the requests that name the model without an alias.
        shadow: whether requests for the model are asked here too, without being answered.
        deployment: what is served; None while nothing is.
        wanted: version that the alias names; None where there is no such alias.
        failure: why the wanted version is not what is served; empty where it is.
    """

    name: str
    alias: str
    share: int = 0
    shadow: bool = False
    deployment: Deployment | None = None
    wanted: int | None = None
    failure: str = ""

    @property
    def id(self) -> str:
        """The name that a request may give as ``model``."""
        return f"{self.name}@{self.alias}"


@dataclass(frozen=True)
class Choice:
    """Where a request goes, and where it is asked too."""

    route: Route
    deployment: Deployment
    shadows: Sequence[Deployment] = field(default_factory=tuple)


class Routes:
    """All that a server serves.

    Args:
        routes: at least one.
    """

    def __init__(self, routes: Sequence[Route]) -> None:
        self.all = list(routes)
        self.names = list(dict.fromkeys(route.name for route in routes))

    def of(self, name: str) -> list[Route]:
        """The routes of a registered model."""
        return [route for route in self.all if route.name == name]

    def serves(self, deployment: Deployment) -> bool:
        """Whether one of the routes has a deployment."""
        return any(route.deployment is deployment for route in self.all)

    def choose(self, model: Any, row: Mapping[str, Any]) -> Choice:
        """Where a request goes: the same request always to the same side of a split.

        Args:
            model: what the request gives as ``model``: a name, ``<name>@<alias>`` or
                ``<name>/<version>``; None is the one model of a server that has one.
            row: what is asked, which decides the side.

        Raises:
            ApiError: 404 where it is not served here, 503 where no version of it is ready.
        """
        if model is None and len(self.names) == 1:
            model = self.names[0]
        if not isinstance(model, str):
            raise ApiError(
                400,
                f"model={shown(model)}: expected one of {self._known()}",
                code="invalid_value",
                param="model",
            )
        route = next((route for route in self.all if route.id == model), None)
        if route is not None and not route.shadow:
            return self._choice(route, [route])
        own = [route for route in self.of(model) if route.share and not route.shadow]
        if own:
            return self._choice(_drawn(own, row), own)
        for route in self.all:
            served = route.deployment
            if (
                served is not None
                and not route.shadow
                and model == f"{route.name}/{served.version.number}"
            ):
                return self._choice(route, [route])
        raise ApiError(
            404,
            f"model={shown(model)} is not served here; there are: {self._known()}; serve.models"
            " names other aliases to serve",
            code="model_not_found",
            param="model",
        )

    def _known(self) -> str:
        return ", ".join(
            dict.fromkeys([*self.names, *(route.id for route in self.all if not route.shadow)])
        )

    def _choice(self, drawn: Route, others: Sequence[Route]) -> Choice:
        """The route drawn, or another of the split where nothing is served under it."""
        ready = next(
            (route for route in [drawn, *others] if route.deployment is not None),
            None,
        )
        if ready is None or ready.deployment is None:
            raise ApiError(
                503,
                f"no version of {drawn.name} is served yet"
                f" ({drawn.failure or f'@{drawn.alias} is being loaded'})",
                code="unavailable",
                retry_after=5,
            )
        shadows = tuple(
            route.deployment
            for route in self.of(drawn.name)
            if route.shadow
            and route.deployment is not None
            and route.deployment is not ready.deployment
        )
        return Choice(ready, ready.deployment, shadows)


def _drawn(routes: Sequence[Route], row: Mapping[str, Any]) -> Route:
    """One of the routes by their shares, from a hash of what is asked."""
    text = json.dumps(row, sort_keys=True, separators=(",", ":"), default=str)
    bucket = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") % BUCKETS
    total = sum(route.share for route in routes)
    reached = 0
    for route in routes:
        reached += route.share
        if bucket * total < reached * BUCKETS:
            return route
    return routes[-1]


def routes_of(models: Mapping[str, Sequence[str | None]], config: ServeConfig) -> Routes:
    """The routes that a config asks for.

    Args:
        models: aliases by name of a registered model; None where it is named without one.
        config: of the server.

    Raises:
        ConfigError: a split or a shadow that no model would have.
    """
    if config.split and not any(None in aliases for aliases in models.values()):
        raise ConfigError(
            "serve.split",
            dict(config.split),
            "a model that is named without an alias, as the split draws one",
            "leave the alias out: serve.models=[models:/<name>]",
        )
    routes: list[Route] = []
    for name, aliases in models.items():
        named = [alias for alias in aliases if alias is not None]
        # a name without an alias is the first that was asked for, where all have one
        shares = {named[0]: 1} if None not in aliases else dict(config.split) or {config.alias: 1}
        shares |= {alias: 0 for alias in named if alias not in shares}
        routes += [Route(name, alias, share) for alias, share in shares.items()]
        if config.shadow is not None and config.shadow not in shares:
            routes.append(Route(name, config.shadow, shadow=True))
    if config.shadow is not None and not any(route.shadow for route in routes):
        raise ConfigError(
            "serve.shadow", config.shadow, "an alias whose answers are not given to clients as well"
        )
    return Routes(routes)
