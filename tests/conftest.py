"""What every room's tests share: a store, a tracking database, and the real command line."""

import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]
BIN = Path(sys.executable).parent

os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

Shell = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Keep the tests of a file, or of a model family, in one process, where they share what is
    costly.

    xdist 3.8 has marks for that (``loadgroup``), which pytest 9.2 does not show to it.
    """
    from tests.scheduling import ByFileOrFamily

    return ByFileOrFamily(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    from tests.scheduling import longest_first

    items.sort(key=lambda item: longest_first(item.nodeid))


def clean_environment(**extra: str) -> dict[str, str]:
    """This process's environment without any MLflow setting, with this interpreter's programs first
    on the path.
    """
    kept = {key: value for key, value in os.environ.items() if not key.startswith("MLFLOW_")}
    return (
        kept
        | {
            "PATH": f"{BIN}{os.pathsep}{kept['PATH']}",
            "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
        }
        | extra
    )


@pytest.fixture
def namespaces() -> None:
    """For tests of what the kernel holds: where it gives no namespaces, they would prove
    nothing.
    """
    from steps.core import processes

    if missing := processes.missing():
        pytest.skip(f"this machine cannot isolate: {'; '.join(missing)}")


@pytest.fixture(scope="session")
def migrated_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty SQLite store with MLflow's schema: making one costs seconds, copying it nothing."""
    path = tmp_path_factory.mktemp("database") / "mlflow.db"
    subprocess.run(
        [str(BIN / "mlflow"), "db", "upgrade", f"sqlite:///{path}"],
        check=True,
        capture_output=True,
        env=clean_environment(),
    )
    return path


@pytest.fixture(scope="session")
def unsynchronised_sqlite() -> None:
    """SQLite databases of this process do not wait for the disk at each commit.

    What a killed process committed is still there, since the kernel has it; only a machine that
    loses its power may lose it, which no test tries.
    """
    from sqlalchemy import event
    from sqlalchemy.engine import Engine

    def switch_off(connection: object, _: object) -> None:
        if isinstance(connection, sqlite3.Connection):
            connection.execute("PRAGMA synchronous=OFF")

    event.listen(Engine, "connect", switch_off)


@pytest.fixture
def tracking(
    unsynchronised_sqlite: None,  # noqa: ARG001 - first, as engines are kept
    migrated_database: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[str]:
    """URI of a fresh SQLite tracking store and registry; fails a test that leaves a run open."""
    import mlflow

    database = tmp_path / "mlflow.db"
    shutil.copy(migrated_database, database)
    uri = f"sqlite:///{database}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    monkeypatch.chdir(tmp_path)
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(uri)
    mlflow.set_registry_uri(uri)
    experiment = mlflow.create_experiment("test", artifact_location=str(tmp_path / "artifacts"))
    mlflow.set_experiment(experiment_id=experiment)
    yield uri
    leaked = mlflow.active_run()
    while mlflow.active_run():
        mlflow.end_run()
    mlflow.set_tracking_uri(before)
    mlflow.set_registry_uri(before)
    assert leaked is None, f"the test left run {leaked.info.run_id if leaked else ''} open"


@pytest.fixture(scope="session")
def shell() -> Shell:
    """Run a command with this interpreter's programs on the path, from a folder of choice; returns
    what it printed.
    """

    def run(
        *words: str, cwd: Path, timeout: float = 600, **extra: str
    ) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            list(words),
            cwd=cwd,
            env=clean_environment(**extra),
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    return run
