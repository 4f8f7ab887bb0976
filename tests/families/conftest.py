"""Each family once a session: its checkpoint fetched into the session's store, built in float32,
and opened in both served classes.
"""

from collections.abc import Iterator

import pytest

from steps.snapshots import child
from steps.snapshots.store import Store
from tests.families.subject import Subject
from tests.families.table import families
from tests.families.vocabularies import Vocabularies
from tests.families.warm import WarmChildren


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the tests of a family together, so that one is made and in memory at a time."""
    places = {family.name: number for number, family in enumerate(families())}
    mine = [
        number
        for number, item in enumerate(items)
        if "subject" in getattr(item, "fixturenames", ())
    ]
    ordered = sorted(
        (items[number] for number in mine),
        key=lambda item: places[item.callspec.params["subject"].name],  # type: ignore[attr-defined]
    )
    for number, item in zip(mine, ordered, strict=True):
        items[number] = item


@pytest.fixture(scope="session")
def session_store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A store that nothing was in before."""
    return Store(tmp_path_factory.mktemp("store"))


@pytest.fixture(scope="session")
def vocabularies(tmp_path_factory: pytest.TempPathFactory) -> Vocabularies:
    """Published tokenizers, fetched once a session."""
    return Vocabularies(tmp_path_factory.mktemp("npm"))


@pytest.fixture(scope="session")
def warm_children(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WarmChildren]:
    """A process that has its imports behind it, and forks."""
    warm = WarmChildren(tmp_path_factory.mktemp("children"))
    yield warm
    warm.close()


@pytest.fixture(autouse=True)
def _steps_start_warm(warm_children: WarmChildren, monkeypatch: pytest.MonkeyPatch) -> None:
    """In this package, and nowhere else, the steps' child processes come from the warm one."""
    monkeypatch.setattr(child, "run", warm_children.run)


@pytest.fixture(scope="session")
def subject(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    session_store: Store,
    vocabularies: Vocabularies,
) -> Iterator[Subject]:
    """The family of the test's row."""
    made = Subject(request.param, tmp_path_factory.mktemp("family"), session_store, vocabularies)
    yield made
    made.close()
