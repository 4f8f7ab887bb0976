"""The endpoints that say what is served and how it does, the webhook, and the chat page."""

from pathlib import Path
from typing import Any

from fastapi import Request
from fastapi.responses import HTMLResponse, Response

from steps.config.serve import ServeConfig
from steps.serving.deployment import Deployment
from steps.serving.errors import ApiError, shown
from steps.serving.follower import Follower
from steps.serving.json_response import json_response
from steps.serving.keys import ApiKeys
from steps.serving.metrics import Metrics
from steps.serving.routes import Routes
from steps.serving.threads import in_thread
from steps.serving.webhook import AliasWebhook

PAGE = Path(__file__).with_name("chat.html")
# the page loads nothing from anywhere else
PAGE_POLICY = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; connect-src"
    " 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
PROMETHEUS = "text/plain; version=0.0.4; charset=utf-8"


class Status:
    """``/v1/models``, ``/healthz``, ``/readyz``, ``/metrics``, ``/webhook`` and ``/``.

    Args:
        config: of the server.
        routes: what is served.
        follower: of the aliases.
        metrics: what ``/metrics`` shows.
        keys: who may ask.
        webhook: takes the registry's; None where no secret is known.
    """

    def __init__(
        self,
        config: ServeConfig,
        routes: Routes,
        follower: Follower,
        metrics: Metrics,
        keys: ApiKeys,
        webhook: AliasWebhook | None,
    ) -> None:
        self._config, self._routes, self._follower = config, routes, follower
        self._metrics, self._keys, self._webhook = metrics, keys, webhook

    async def models(self, request: Request) -> Response:
        """List what a request may give as ``model``."""
        self._keys.check(request.headers.get("authorization"))
        return json_response({"object": "list", "data": list(self._listed().values())})

    async def model(self, model: str, request: Request) -> Response:
        """One of what a request may give as ``model``."""
        self._keys.check(request.headers.get("authorization"))
        found = self._listed().get(model) or self._of_version(model)
        if found is None:
            raise ApiError(
                404,
                f"model={shown(model)} is not served here; GET /v1/models lists what is",
                code="model_not_found",
                param="model",
            )
        return json_response(found)

    def _of_version(self, model: str) -> dict[str, Any] | None:
        """``<name>/<version>`` of a version that an alias names."""
        routes = [
            route
            for route in self._routes.all
            if route.deployment is not None
            and not route.shadow
            and model == f"{route.name}/{route.deployment.version.number}"
        ]
        if not routes:
            return None
        return _listed(model, routes[0].deployment, [route.alias for route in routes])

    def _listed(self) -> dict[str, dict[str, Any]]:
        listed: dict[str, dict[str, Any]] = {}
        for name in self._routes.names:
            served = [route for route in self._routes.of(name) if route.deployment and route.share]
            if served:
                listed[name] = _listed(name, served[0].deployment, [r.alias for r in served])
        for route in self._routes.all:
            if route.deployment is not None and not route.shadow:
                listed[route.id] = _listed(route.id, route.deployment, [route.alias])
        return listed

    async def health(self) -> Response:
        """Whether the server's loop turns."""
        return json_response({"status": "ok"})

    async def readiness(self, request: Request) -> Response:
        """Whether every model has a version that answers, and what keeps others from it; where keys
        are needed, reasons are for those who have one, as they name files and addresses.
        """
        try:
            self._keys.check(request.headers.get("authorization"))
            trusted = True
        except ApiError:
            trusted = False
        models: list[dict[str, Any]] = []
        for route in self._routes.all:
            served = route.deployment
            models.append(
                {
                    "model": route.name,
                    "alias": route.alias,
                    "version": served.version.number if served else None,
                    "variant": served.version.variant if served else None,
                    "digest": served.version.digest if served else None,
                    "wanted": route.wanted,
                    "ready": served is not None and served.ready,
                    "shadow": route.shadow,
                    "failure": route.failure or (served.trouble if served else "") or None,
                    "registry": self._follower.unreachable.get(route.name, "ok"),
                }
            )
        up = all(
            any(one["ready"] for one in models if one["model"] == name and not one["shadow"])
            for name in self._routes.names
        )
        whole = up and not any(
            one["failure"] or one["registry"] != "ok" or not one["ready"] for one in models
        )
        status = "ready" if whole else "degraded" if up else "unavailable"
        if not trusted:
            for one in models:
                one["failure"] = one["failure"] and "a reason is told with an API key"
                one["registry"] = "ok" if one["registry"] == "ok" else "unreachable"
        return json_response({"status": status, "models": models}, 200 if up else 503)

    async def metrics(self) -> Response:
        """Figures for Prometheus."""
        return Response(self._metrics.text(), media_type=PROMETHEUS)

    async def hear(self, request: Request) -> Response:
        """Take MLflow's registry webhook: look at the aliases now."""
        if self._webhook is None:
            raise ApiError(
                404,
                f"no webhook is taken here: {self._config.webhook_secret_env} holds no secret",
                code="not_found",
            )
        name = self._webhook.take(request.headers, await _small_body(request))
        if name is not None:
            self._follower.look(name)
        return Response(status_code=204)

    async def page(self) -> Response:
        """A page to chat with what is served."""
        text = await in_thread(PAGE.read_text, "utf-8")
        return HTMLResponse(text, headers={"Content-Security-Policy": PAGE_POLICY})


def _listed(identity: str, deployment: Deployment | None, aliases: list[str]) -> dict[str, Any]:
    assert deployment is not None
    version = deployment.version
    return {
        "id": identity,
        "object": "model",
        "created": version.created,
        "owned_by": version.name,
        "version": version.number,
        "aliases": aliases,
        "variant": version.variant,
    }


async def _small_body(request: Request) -> bytes:
    read = bytearray()
    async for piece in request.stream():
        read += piece
        if len(read) > AliasWebhook.LARGEST:
            raise ApiError(413, "the delivery is too large", code="body_too_large")
    return bytes(read)
