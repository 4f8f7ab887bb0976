"""A tracking store that cannot be used is said at once, with its URI and the cure."""

import os
import socket
import time
from pathlib import Path

import pytest

from steps.core import tracking_store
from steps.core.errors import StepError


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracking_store, "getproxies", dict)


@pytest.mark.parametrize(
    "uri", ["http://127.0.0.1:9", "https://nobody.invalid/mlflow", "http://x:port"]
)
def test_a_server_that_is_away_is_said_at_once(uri: str) -> None:
    started = time.monotonic()
    with pytest.raises(StepError, match=r"does not answer \(.*\); start the tracking server, or"):
        tracking_store.require(uri)
    assert time.monotonic() - started < 10
    tracking_store.require(uri, claimed=True)  # it answered a moment ago: MLflow's retries hold


def test_a_password_is_not_shown() -> None:
    with pytest.raises(StepError) as caught:
        tracking_store.require("http://rosa:s3cret@127.0.0.1:9")
    assert "s3cret" not in str(caught.value)


def test_a_server_that_listens_or_stands_behind_a_proxy_is_let_pass(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        tracking_store.require(f"http://127.0.0.1:{listener.getsockname()[1]}")
    monkeypatch.setattr(tracking_store, "getproxies", lambda: {"http": "http://proxy:3128"})
    monkeypatch.setattr(tracking_store, "proxy_bypass", lambda _host: False)
    tracking_store.require("http://127.0.0.1:9")


def test_other_stores_are_let_pass(tmp_path: Path) -> None:
    for uri in (
        "",
        "databricks",
        f"sqlite:///{tmp_path}/new.db",
        "sqlite://",
    ):
        tracking_store.require(uri)


@pytest.mark.parametrize(
    ("uri", "said"),
    [
        ("mysql+pymysql://db/mlflow", "pymysql is not installed; run `pip install pymysql`"),
        ("postgresql://db:port/x", r"expected dialect\+driver://user@host:port/database"),
        ("postgresql+nope://db/x", r"expected dialect\+driver://"),
        ("localhost:5000", "expected the address of a tracking server or a database, such as"),
        ("foo://bar", "expected the address of a tracking server or a database, such as"),
        ("/data/mlruns", "expected the address of a tracking server or a database, such as"),
        ("sqlite:////tmp", r"/tmp is a folder; set sqlite:////tmp/mlflow\.db"),
    ],
)
def test_an_address_that_leads_nowhere_has_a_cure(uri: str, said: str) -> None:
    with pytest.raises(StepError, match=said):
        tracking_store.require(uri)


def test_a_folder_is_let_pass_where_mlflow_is_told_to_take_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    tracking_store.require("/data/mlruns")


def test_a_relative_database_that_means_another_file_here_says_what_to_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    tracking_store.require("sqlite:///mlflow.db")  # of a command that makes it here
    with pytest.raises(StepError, match=r"set MLFLOW_TRACKING_URI=sqlite:////<folder>/mlflow\.db"):
        tracking_store.require("sqlite:///mlflow.db", claimed=True)
    assert not (tmp_path / "mlflow.db").exists()
    assert tracking_store.relative_cure(f"sqlite:///{tmp_path}/mlflow.db") is None


def test_a_database_that_cannot_be_written_says_where_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(StepError, match=r"the folder .*/away does not exist; make it"):
        tracking_store.require(f"sqlite:///{tmp_path}/away/mlflow.db")
    monkeypatch.setattr(os, "access", lambda _path, _mode: False)  # root may write anywhere
    with pytest.raises(StepError, match=r"cannot be written by this user; set MLFLOW_TRACKING_URI"):
        tracking_store.require(f"sqlite:///{tmp_path}/mlflow.db")
