"""One model family: its checkpoint, its build, both served classes and transformers."""

import os
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest

from steps.config.onnx import OnnxConfig, Precision
from steps.pipeline.compose import compose_config
from steps.snapshots import fetch, onnx_build
from steps.snapshots.manifest import Snapshot
from steps.snapshots.store import Store
from tests.families.reference import Reference
from tests.families.table import Family, families
from tests.families.vocabularies import Vocabularies
from tests.families.weights import write_checkpoint
from tests.wrappers.subjects import NAME, Context

# read when torch is imported: threads of tiny models would mostly spin
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
FP32 = OnnxConfig(precision=Precision.fp32)


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
        self.source = folder / "brought"  # the checkpoint as a user brings it
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
