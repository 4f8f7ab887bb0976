"""Aliases are followed each by itself: one whose version does not load holds up no other."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, ClassVar

import pytest

from steps.config.serve import ServeConfig
from steps.core import tags
from steps.registry.model_version import Version
from steps.serving import alias_lookup, follower, spares
from steps.serving.alias_lookup import AliasLookup
from steps.serving.follower import Follower
from steps.serving.metrics import Metrics
from steps.serving.routes import Routes, routes_of
from steps.serving.served_version import ServedVersion
from steps.serving.worker_process import LoadFailedError

pytestmark = pytest.mark.anyio
HANGS = 9  # number of the version that never loads
CONFIG = ServeConfig(poll_seconds=0.05, models=["models:/slm", "models:/slm@challenger"])


def digest(number: int) -> str:
    return f"sha256:{number:064}"


class Lookup:
    """What the aliases name, without a registry."""

    unreachable: Mapping[str, str] = {}

    def __init__(self, **aliases: int) -> None:
        self.aliases = aliases

    async def named(self, name: str) -> dict[str, Version]:
        await asyncio.sleep(0.02)
        return {
            alias: Version(name, number, {tags.DIGEST: digest(number)}, (), "", None, "", 0)
            for alias, number in self.aliases.items()
        }

    def verifiable(self, found: Version) -> ServedVersion:
        return ServedVersion(found.name, found.number, "onnx", digest(found.number))

    def why_missing(self, route: Any) -> str:
        return f"there is no alias @{route.alias}"

    def tag(self, version: ServedVersion, failure: str | None) -> None:
        pass


class Cache:
    """Models that are on this machine."""

    def fetch(self, version: ServedVersion) -> tuple[ServedVersion, Path]:
        return version, Path()

    def touch(self, _: str) -> None: ...

    def remember(self, *_: Any) -> None: ...

    def prune(self, _: Any) -> None: ...


class Loaded:
    """A deployment that opens at once, or never."""

    opened: ClassVar[list[int]] = []

    lost = False

    def __init__(self, version: ServedVersion, *_: Any) -> None:
        self.version = version

    async def open(self) -> None:
        if self.version.number == HANGS:
            await asyncio.Event().wait()
        self.opened.append(self.version.number)

    async def drain(self) -> None: ...

    async def close(self) -> None: ...


@pytest.fixture
def routes(monkeypatch: pytest.MonkeyPatch) -> Routes:
    monkeypatch.setattr(follower, "Deployment", Loaded)
    monkeypatch.setattr(Loaded, "opened", [])
    return routes_of({"slm": [None, "challenger"]}, CONFIG)


@asynccontextmanager
async def following(routes: Routes, lookup: Lookup) -> AsyncIterator[None]:
    followed = Follower(routes, lookup, Cache(), CONFIG, Metrics())  # type: ignore[arg-type]
    task = asyncio.create_task(followed.run())
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not holds():
            await asyncio.sleep(0.01)


async def until_served(routes: Routes, **wanted: int) -> None:
    await until(lambda: served(routes) == wanted)


def served(routes: Routes) -> dict[str, int | None]:
    return {
        route.alias: route.deployment.version.number if route.deployment else None
        for route in routes.all
    }


async def test_a_move_to_a_running_version_does_not_wait_for_a_load_that_hangs(
    routes: Routes,
) -> None:
    lookup = Lookup(champion=1, challenger=2)
    async with following(routes, lookup):
        await until(lambda: served(routes) == {"champion": 1, "challenger": 2})
        lookup.aliases["challenger"] = HANGS
        await until(lambda: routes.all[1].wanted == HANGS)
        lookup.aliases["champion"] = 2  # which the challenger still serves
        await until(lambda: served(routes) == {"champion": 2, "challenger": 2})
    assert Loaded.opened == [1, 2]


async def test_a_load_begins_beside_one_that_hangs(
    routes: Routes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(follower, "PATIENCE", 0.2)
    lookup = Lookup(champion=1, challenger=HANGS)
    async with following(routes, lookup):
        await until(lambda: served(routes)["champion"] == 1)
        lookup.aliases["champion"] = 3
        await until(lambda: served(routes)["champion"] == 3)
    assert Loaded.opened == [1, 3]


async def test_one_version_of_several_aliases_is_loaded_once(routes: Routes) -> None:
    routes = routes_of({"slm": ["staging", "challenger", None]}, CONFIG)
    lookup = Lookup(champion=4, challenger=4, staging=4)
    async with following(routes, lookup):
        await until(lambda: set(served(routes).values()) == {4})
        lookup.aliases |= {"champion": 5, "challenger": 5, "staging": 5}
        await until(lambda: set(served(routes).values()) == {5})
    assert Loaded.opened == [4, 5]


async def test_a_version_that_failed_a_moment_ago_is_shown_under_every_alias(
    routes: Routes, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fails(self: Loaded) -> None:
        if self.version.number == HANGS:
            raise LoadFailedError("its bytes are others")

    monkeypatch.setattr(Loaded, "open", fails)
    lookup = Lookup(champion=HANGS, challenger=2)
    champion, challenger = routes.all
    async with following(routes, lookup):
        await until(lambda: "its bytes are others" in champion.failure)
        lookup.aliases |= {"champion": 1, "challenger": HANGS}
        await until(lambda: served(routes)["champion"] == 1 and challenger.wanted == HANGS)
        await until(lambda: challenger.failure != "")
        assert challenger.failure == f"models:/slm/{HANGS}: its bytes are others"
        assert champion.failure == ""


async def test_aliases_that_are_swapped_load_nothing(routes: Routes) -> None:
    lookup = Lookup(champion=1, challenger=2)
    async with following(routes, lookup):
        await until(lambda: served(routes) == {"champion": 1, "challenger": 2})
        for champion, challenger in ((2, 1), (1, 2), (2, 1)):
            lookup.aliases |= {"champion": champion, "challenger": challenger}
            await until_served(routes, champion=champion, challenger=challenger)
    assert Loaded.opened == [1, 2]


async def test_what_nothing_names_any_more_is_drained(
    routes: Routes, monkeypatch: pytest.MonkeyPatch
) -> None:
    drained: list[int] = []

    async def drain(self: Loaded) -> None:
        drained.append(self.version.number)

    monkeypatch.setattr(Loaded, "drain", drain)
    monkeypatch.setattr(spares, "SECONDS", 0.2)
    lookup = Lookup(champion=1, challenger=2)
    async with following(routes, lookup):
        await until(lambda: served(routes) == {"champion": 1, "challenger": 2})
        lookup.aliases["champion"] = 3
        await until(lambda: drained == [1])
    assert Loaded.opened == [1, 2, 3]


async def test_what_answers_by_name_is_loaded_first(routes: Routes) -> None:
    routes = routes_of({"slm": ["staging", "challenger", None]}, CONFIG)
    async with following(routes, Lookup(champion=1, challenger=2, staging=3)):
        await until(lambda: None not in served(routes).values())
    assert Loaded.opened[0] == 1


async def test_a_version_whose_files_are_gone_is_fetched_again(
    routes: Routes, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with following(routes, Lookup(champion=1, challenger=1)):
        await until(lambda: served(routes) == {"champion": 1, "challenger": 1})
        before = routes.all[0].deployment
        assert before is not None
        monkeypatch.setattr(before, "lost", True)
        await until(lambda: all(route.deployment is not before for route in routes.all))
    assert Loaded.opened == [1, 1]


async def test_an_alias_that_appears_has_no_failure_any_more(routes: Routes) -> None:
    lookup = Lookup(challenger=2)
    champion = routes.all[0]
    async with following(routes, lookup):
        await until(lambda: champion.failure == "there is no alias @champion")
        lookup.aliases["champion"] = HANGS
        await until(lambda: champion.wanted == HANGS)
        assert champion.failure == ""


async def test_a_registry_that_does_not_answer_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(alias_lookup, "LOOK_SECONDS", 0.1)
    never = asyncio.Event()
    loop = asyncio.get_running_loop()

    def hangs() -> Any:
        asyncio.run_coroutine_threadsafe(never.wait(), loop).result()

    routes = routes_of({"slm": [None]}, CONFIG)
    lookup = AliasLookup(routes, hangs, CONFIG, Metrics())
    assert await lookup.named("slm") is None
    assert lookup.unreachable == {"slm": "no answer within 0 s"}
    never.set()
