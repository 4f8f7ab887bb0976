"""Ask the registry what the aliases of the served models name."""

import asyncio
import logging
from collections.abc import Callable, Mapping

import mlflow

from steps.config.serve import ServeConfig
from steps.core import tags, tracking_store
from steps.core.errors import StepError
from steps.core.model_uri import logged_model_of
from steps.core.redaction import redact
from steps.registry.client import RegistryClient
from steps.registry.model_version import Version
from steps.registry.retries import first_line
from steps.serving.metrics import Metrics
from steps.serving.routes import Route, Routes
from steps.serving.served_version import ServedVersion
from steps.serving.threads import in_thread
from steps.serving.worker_process import LoadFailedError

log = logging.getLogger(__name__)

LONGEST_REASON = 500  # characters of a tag
# seconds that one look may take: MLflow's own client waits 120 for a server that does not answer
LOOK_SECONDS = 30.0


class AliasLookup:
    """What the registry says of the served models; it may be away at any time.

    Args:
        routes: that are served.
        registry: opens it, or gives the one that is open.
        config: of the server.
        metrics: told whether the registry answers.

    Attributes:
        unreachable: why the registry could not be asked, by model.
    """

    def __init__(
        self,
        routes: Routes,
        registry: Callable[[], RegistryClient],
        config: ServeConfig,
        metrics: Metrics,
    ) -> None:
        self._routes, self._registry = routes, registry
        self._config, self._metrics = config, metrics
        self._aliases: dict[str, list[str] | None] = {}  # by model; None where it is not registered
        self.unreachable: dict[str, str] = {}

    async def named(self, name: str) -> Mapping[str, Version] | None:
        """Versions by the aliases that are followed; None while the registry cannot be asked."""
        try:
            async with asyncio.timeout(LOOK_SECONDS):
                found = await in_thread(self._asked, name)
        except Exception as error:  # noqa: BLE001 - whatever the registry says, what is served stays
            said = redact(str(error)) or f"no answer within {LOOK_SECONDS:.0f} s"
            if self.unreachable.get(name) != said:
                log.warning("models:/%s cannot be looked at; what is served stays (%s)", name, said)
            self.unreachable[name] = said
            self._metrics.registry_up(name, False)
            return None
        if self.unreachable.pop(name, None) is not None:
            log.info("models:/%s can be looked at again", name)
        self._metrics.registry_up(name, True)
        return found

    def _asked(self, name: str) -> dict[str, Version]:
        try:
            return self._look_at(name)
        except Exception as error:
            tracking_store.require_server(mlflow.get_registry_uri())  # says what to do about it
            raise StepError(first_line(error)) from error

    def _look_at(self, name: str) -> dict[str, Version]:
        registry = self._registry()
        known = registry.aliases(name)
        self._aliases[name] = None if known is None else sorted(known)
        aliases = known or {}
        found = {}
        for route in self._routes.of(name):
            number = aliases.get(route.alias)
            version = registry.version(name, number) if number is not None else None
            if version is not None:
                found[route.alias] = version
        return found

    def why_missing(self, route: Route) -> str:
        """What is not in the registry, and how it gets there."""
        aliases = self._aliases.get(route.name)
        if aliases is None:
            where = redact(mlflow.get_registry_uri())
            return (
                f"there is no registered model {route.name!r} at {where}; make one with"
                " `mlflow run . --env-manager local -P model=…`, or name another registry with"
                " MLFLOW_TRACKING_URI"
            )
        known = ", ".join(f"@{alias}" for alias in aliases) or "none"
        return (
            f"there is no alias @{route.alias} of models:/{route.name} (there are: {known});"
            " set it: `mlflow run . -e promote --env-manager local -P"
            f" target=models:/{route.name}/<version>`"
        )

    def verifiable(self, found: Version) -> ServedVersion:
        """The version with the digest that its bytes must have.

        Raises:
            LoadFailedError: it has none, or two.
        """
        logged = self._registry().tags_of_logged(found)
        digests = {said for said in (found.tags.get(tags.DIGEST), logged.get(tags.DIGEST)) if said}
        if len(digests) > 1:
            raise LoadFailedError(
                f"its tag {tags.DIGEST} is not that of its logged model; register it anew"
            )
        if not digests and self._config.require_digest:
            raise LoadFailedError(
                f"it has no tag {tags.DIGEST}, so its bytes cannot be verified; register it with"
                " `mlflow run . -e register --env-manager local`, or pass"
                " serve.require_digest=false"
            )
        variant = found.tags.get(tags.VARIANT) or logged.get(tags.VARIANT, "")
        return ServedVersion(
            found.name,
            found.number,
            variant,
            next(iter(digests), ""),
            found.created_ms // 1000,
            logged_model_of(found.source, self._source_of) or "",
        )

    def _source_of(self, name: str, number: int) -> str | None:
        version = self._registry().version(name, number)
        return version.source if version else None

    def tag(self, version: ServedVersion, failure: str | None) -> None:
        """Show in the registry that a version could not be served, or can be again."""
        try:
            registry = self._registry()
            found = registry.version(version.name, version.number)
            if found is None:
                return
            said = f"failed: {failure}"[:LONGEST_REASON] if failure else ""
            if failure or found.tags.get(tags.SERVING, "").startswith("failed"):
                value = said or "serves again"
                registry.set_version_tag(version.name, version.number, tags.SERVING, value)
        except Exception as error:  # noqa: BLE001 - a user who may only read serves as well
            log.warning("%s could not be tagged: %s", version.uri, redact(str(error)))
