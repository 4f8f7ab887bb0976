"""One whole chain on the tiny model, run once by the real command line and read by many tests."""

from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.conftest import ROOT, Shell

CANARY = "hf_canary0123456789"  # HF_TOKEN of the chain


@dataclass(frozen=True)
class ChainRun:
    """A finished `mlflow run` of main."""

    folder: Path  # where the command was given
    printed: str

    @property
    def uri(self) -> str:
        return f"sqlite:///{self.folder}/mlflow.db"


@pytest.fixture(scope="session")
def tiny_chain(shell: Shell, tmp_path_factory: pytest.TempPathFactory) -> ChainRun:
    """`mlflow run <project>` with model=tiny_phi3 from an empty folder, with MLflow's default
    store.
    """
    folder = tmp_path_factory.mktemp("chain")
    words = (
        "mlflow",
        "run",
        str(ROOT),
        "--env-manager",
        "local",
        "-P",
        "model=tiny_phi3",
        "-P",
        "overrides=evaluate=smoke",
    )
    done = shell(*words, cwd=folder, HF_TOKEN=CANARY)
    printed = done.stdout + done.stderr
    assert done.returncode == 0, printed[-6000:]
    return ChainRun(folder, printed)
