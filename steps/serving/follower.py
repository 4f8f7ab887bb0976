"""Serve what the aliases name: look, load, switch over, drain."""

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

from steps.config.serve import ServeConfig
from steps.core import tags
from steps.core.redaction import redact
from steps.registry.model_version import Version
from steps.serving.alias_lookup import AliasLookup
from steps.serving.deployment import Deployment
from steps.serving.load_retries import LoadRetries
from steps.serving.metrics import Metrics
from steps.serving.model_cache import ModelCache
from steps.serving.routes import Route, Routes
from steps.serving.served_version import ServedVersion
from steps.serving.spares import Spares
from steps.serving.threads import in_thread, within
from steps.serving.worker_process import LoadFailedError

log = logging.getLogger(__name__)

PATIENCE = 60.0  # seconds that a load waits for another one, which may hang
HEAD_START = 10.0  # seconds that others wait for what answers by name to be loaded first


class Follower:
    """Keeps the routes of a server at the versions that their aliases name.

    Args:
        routes: to keep.
        lookup: of what the aliases name.
        cache: of models' bytes.
        config: of the server.
        metrics: told of every move and failure.
    """

    def __init__(
        self,
        routes: Routes,
        lookup: AliasLookup,
        cache: ModelCache,
        config: ServeConfig,
        metrics: Metrics,
    ) -> None:
        self._routes, self._lookup, self._cache = routes, lookup, cache
        self._config, self._metrics = config, metrics
        self._loading = asyncio.Lock()  # one at a time: two need more memory at their peak
        self._retries = LoadRetries()
        self._draining: set[asyncio.Task[None]] = set()
        self._looks = {route: asyncio.Event() for route in routes.all}
        self._ahead = {route for route in routes.all if route.share}  # not yet begun to load
        self._begun = asyncio.Event()
        self._spares = Spares(routes.serves)

    @property
    def unreachable(self) -> Mapping[str, str]:
        """Why the registry could not be asked when it was last tried, by model."""
        return self._lookup.unreachable

    def look(self, name: str) -> None:
        """Look at a model's aliases now: a webhook told of a move."""
        for route in self._routes.of(name):
            self._looks[route].set()

    async def run(self) -> None:
        """Follow the aliases until it is cancelled; one that is slow to load holds up no other."""
        async with asyncio.TaskGroup() as group:
            for route in self._routes.all:
                group.create_task(self._follow(route))

    async def _follow(self, route: Route) -> None:
        if not route.share and self._ahead:
            await within(HEAD_START, self._begun)
        while True:
            try:
                await self._follow_once(route)
            except Exception as error:
                log.exception("%s could not be followed: %s", route.id, redact(str(error)))
            self._begin(route)
            await within(self._config.poll_seconds, self._looks[route])
            self._looks[route].clear()

    def _begin(self, route: Route) -> None:
        """Let others load once what answers by name has its place before them."""
        self._ahead.discard(route)
        if not self._ahead:
            self._begun.set()

    async def _follow_once(self, route: Route) -> None:
        """Look at an alias, and serve what it names."""
        named = await self._lookup.named(route.name)
        if named is None:
            await self._serve_remembered(route)
            return
        version = named.get(route.alias)
        if route.wanted is None and version is not None:
            route.failure = ""  # there was no such alias
        route.wanted = version.number if version else None
        if version is None:
            self._without_alias(route)
        elif not _serves(route.deployment, version) or _lost(route.deployment):
            await self._move(route, version)
        else:
            route.failure = ""

    def _without_alias(self, route: Route) -> None:
        said = self._lookup.why_missing(route)
        if route.failure != said:
            log.warning("%s; %s", said, "what is served stays" if route.deployment else "waiting")
        route.failure = said

    async def _serve_remembered(self, route: Route) -> None:
        """Without a registry, serve what was served last on this machine."""
        if route.deployment is not None:
            return
        version = await in_thread(self._cache.remembered, route.name, route.alias)
        if version is None:
            why = self._lookup.unreachable.get(route.name, "")
            route.failure = f"the registry cannot be asked: {why}"
            return
        if not self._retries.why_not(version):
            log.warning("%s is served from this machine's copy", version.uri)
            await self._load(route, version)

    async def _move(self, route: Route, found: Version) -> None:
        """Serve another version, unless it failed a moment ago."""
        if shared := self._served(route, found):
            await self._switch(route, shared)
            return
        if why := self._retries.why_not(found):
            route.failure = why  # it may have failed under another alias
            return
        try:
            version = await in_thread(self._lookup.verifiable, found)
        except LoadFailedError as error:
            await self._failed(route, ServedVersion(found.name, found.number, "", ""), str(error))
            return
        await self._load(route, version)

    def _served(self, route: Route, wanted: Version | ServedVersion) -> Deployment | None:
        """The deployment of a version that another alias of its model has."""
        others = [other.deployment for other in self._routes.of(route.name)]
        others += self._spares.of(route.name)
        served = (other for other in others if _serves(other, wanted) and not _lost(other))
        return next(served, None)

    @asynccontextmanager
    async def _turn(self) -> AsyncIterator[None]:
        """Wait for the load before, but not for one that hangs."""
        try:
            async with asyncio.timeout(PATIENCE):
                await self._loading.acquire()
        except TimeoutError:
            log.warning("another load has taken over %.0f s; the next begins beside it", PATIENCE)
            yield
            return
        try:
            yield
        finally:
            self._loading.release()

    async def _load(self, route: Route, version: ServedVersion) -> None:
        """Load a version and serve it, unless the alias names another one by then."""
        self._begin(route)
        async with self._turn():
            if shared := self._served(route, version):  # another alias of it was moved meanwhile
                await self._switch(route, shared)
                return
            log.info("%s: loading %s for @%s", route.name, version.uri, route.alias)
            loading = asyncio.create_task(self._opened(version))
            try:
                while not loading.done():
                    await asyncio.wait({loading}, timeout=self._config.poll_seconds)
                    if not loading.done() and not await self._still_named(route, version):
                        log.info("%s is not wanted any more; it is not loaded", version.uri)
                        await _given_up(loading)
                        return
                made = loading.result()
            except asyncio.CancelledError:
                await _given_up(loading)
                raise
            except Exception as error:  # noqa: BLE001 - whatever it is, what is served stays
                await self._failed(route, version, redact(str(error)) or type(error).__name__)
                return
            self._retries.loaded(version)
            if await self._still_named(route, version):
                await self._switch(route, made)  # before the next load, which may be of the same
            else:
                log.info("%s was loaded, and is not wanted any more", version.uri)
                await made.close()

    async def _opened(self, version: ServedVersion) -> Deployment:
        seconds = self._config.load_timeout
        try:
            async with asyncio.timeout(seconds):
                version, folder = await in_thread(self._cache.fetch, version)
                made = Deployment(version, folder, self._config, self._metrics.worker_replaced)
                await made.open()
        except TimeoutError:
            raise LoadFailedError(
                f"it was not fetched and loaded within serve.load_timeout={seconds:g} s"
            ) from None
        return made

    async def _still_named(self, route: Route, version: ServedVersion) -> bool:
        """Whether the alias still names a version, as far as the registry can be asked."""
        named = await self._lookup.named(route.name)
        if named is None:
            return True
        found = named.get(route.alias)
        route.wanted = found.number if found else None
        return found is not None and found.number == version.number

    async def _switch(self, route: Route, made: Deployment) -> None:
        """Send new requests to a deployment; the one before is drained."""
        before, route.deployment, route.failure = route.deployment, made, ""
        self._metrics.serving(route.name, route.alias, made.version)
        log.info(
            "%s@%s serves version %d%s",
            route.name,
            route.alias,
            made.version.number,
            f" instead of {before.version.number}" if before else "",
        )
        if before is not None and not self._routes.serves(before):
            task = asyncio.create_task(self._spares.retire(before))
            self._draining.add(task)
            task.add_done_callback(self._draining.discard)
            self.look(route.name)  # aliases that were swapped name what was served before
        await in_thread(self._remember, route, made.version, before and before.version)

    def _remember(self, route: Route, version: ServedVersion, before: ServedVersion | None) -> None:
        try:
            if before is not None:
                self._cache.touch(before.digest)
            self._cache.remember(version, route.alias)
            self._cache.prune(
                other.deployment.version.digest
                for other in self._routes.all
                if other.deployment is not None
            )
        except OSError as error:
            log.warning("what is served could not be recorded for the next start: %s", error)
        self._lookup.tag(version, None)

    async def _failed(self, route: Route, version: ServedVersion, reason: str) -> None:
        """The version before stays; the next try comes later, and later each time."""
        route.failure = f"{version.uri}: {reason}"
        pause = self._retries.failed(version, route.failure)
        stays = route.deployment
        log.error(
            "%s cannot be served: %s; %s; tried again in %.0f s",
            version.uri,
            reason,
            f"version {stays.version.number} stays" if stays else "nothing is served",
            pause,
        )
        self._metrics.load_failed(version)
        await in_thread(self._lookup.tag, version, reason)

    async def close(self) -> None:
        """End all workers at once."""
        for task in list(self._draining):
            task.cancel()
        served = {id(route.deployment): route.deployment for route in self._routes.all}
        await asyncio.gather(
            *(deployment.close() for deployment in served.values() if deployment is not None),
            *self._draining,
            return_exceptions=True,
        )


async def _given_up(loading: "asyncio.Task[Deployment]") -> None:
    """End a load, also one that was done in this moment."""
    loading.cancel()
    (made,) = await asyncio.gather(loading, return_exceptions=True)
    if isinstance(made, Deployment):
        await made.close()


def _lost(deployment: Deployment | None) -> bool:
    return deployment is not None and deployment.lost


def _serves(deployment: Deployment | None, wanted: Version | ServedVersion) -> bool:
    """Whether a deployment is of this version: a number alone may be another version's, where a
    registered model was deleted and made anew.
    """
    if deployment is None or deployment.version.number != wanted.number:
        return False
    known = deployment.version.digest
    if isinstance(wanted, ServedVersion):
        return wanted.digest in ("", known)
    return wanted.tags.get(tags.DIGEST, known) == known
