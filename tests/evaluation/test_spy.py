"""No secret of the evaluating process reaches anything that an evaluation writes, whatever the
model does to get at it.
"""

import logging
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from steps.config.isolation import Isolation
from steps.core import processes
from steps.core.errors import ConfigError
from steps.evaluation.evaluate import evaluate_models
from steps.evaluation.publish import log_report
from steps.evaluation.report import Report
from tests.evaluation.settings import QUICK, config

SPY = Path(__file__).with_name("models") / "spy.py"
# by names and patterns, so redaction knows them
KNOWN = {
    "MLFLOW_TRACKING_PASSWORD": "tracking-pass-4417",
    "AWS_SECRET_ACCESS_KEY": "wJalrXUtnFEMI/K7MDENG",
    "HF_TOKEN": "hf_" + "q8Zk3LmN0pQrStUv",
    "DATABASE_URL": "postgresql://mlflow:db-pass-9021@db.example.org/mlflow",
}
CREDENTIALS = "credentials-file-5563"
# nobody could recognise these: only what a model cannot read keeps them
UNKNOWN_VARIABLE, UNKNOWN_FILE, NETWORK = (
    "zebra-crossing-7731",
    "marmalade-plan-2280",
    "loopback-word-6642",
)
SECRETS_KNOWN = (
    "tracking-pass-4417",
    "wJalrXUtnFEMI/K7MDENG",
    "hf_q8Zk3LmN0pQrStUv",
    "db-pass-9021",
    CREDENTIALS,
)
SECRETS = (*SECRETS_KNOWN, UNKNOWN_VARIABLE, UNKNOWN_FILE, NETWORK)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user with seven secrets in environment and home folder."""
    folder = tmp_path / "home"
    for name, text in (
        (
            ".mlflow/credentials",
            (
                "[mlflow]\nmlflow_tracking_username = rosa\nmlflow_tracking_password ="
                f" {CREDENTIALS}\n"
            ),
        ),
        (".aws/credentials", f"[default]\naws_secret_access_key = {CREDENTIALS}\n"),
        ("notes/plan.txt", UNKNOWN_FILE),
    ):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    monkeypatch.setenv("HOME", str(folder))
    for name, value in {**KNOWN, "BUILD_NOTE": UNKNOWN_VARIABLE}.items():
        monkeypatch.setenv(name, value)
    return folder


@pytest.fixture
def port() -> Iterator[int]:
    """Somebody on this machine who tells a secret to all who connect, as a database without a
    password does.
    """
    with socket.create_server(("127.0.0.1", 0)) as server:

        def tell() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:  # closed
                    return
                with connection:
                    connection.sendall(NETWORK.encode())

        threading.Thread(target=tell, daemon=True).start()
        yield int(server.getsockname()[1])


@pytest.fixture
def spy(scoring_store: str, home: Path, port: int) -> Callable[..., str]:
    """Log the spy, without letting MLflow try it in this process, and give its URI."""
    import mlflow
    from mlflow.models import ModelSignature
    from mlflow.types.llm import CHAT_MODEL_INPUT_SCHEMA

    def log(**more: Any) -> str:
        mlflow.set_experiment("scoring")
        known = {
            "home": str(home),
            "database": scoring_store.removeprefix("sqlite:///"),
            "port": port,
            **more,
        }
        with mlflow.start_run():
            info = mlflow.pyfunc.log_model(
                name="spy",
                python_model=str(SPY),
                model_config=known,
                signature=ModelSignature(inputs=CHAT_MODEL_INPUT_SCHEMA),
                pip_requirements=["mlflow"],
            )
        return f"models:/{info.model_id}"

    return log


def leaked(
    *folders: Path, text: str = "", secrets: tuple[str, ...] = SECRETS
) -> set[tuple[str, str]]:
    """Secrets in files below these folders, and where; the user's own files aside."""
    leaks = {(secret, "said") for secret in secrets if secret in text}
    for folder in folders:
        for file in folder.rglob("*"):
            if file.is_file() and "home" not in file.relative_to(folder).parts:
                data = file.read_bytes()
                leaks |= {(secret, str(file)) for secret in secrets if secret.encode() in data}
    return leaks


def evaluated(uris: list[str], workdir: Path, **settings: Any) -> Report:
    """A whole evaluation with report, page, table, traces and database."""
    import mlflow

    workdir.mkdir()
    mlflow.set_experiment("scoring")
    with mlflow.start_run():
        return evaluate_models(
            uris,
            config(**{**QUICK, "traces": True, **settings}),
            incumbent_uri=None,
            workdir=workdir,
            log_to=log_report,
        )


@pytest.mark.usefixtures("namespaces")
def test_a_spy_learns_nothing(
    spy: Callable[..., str],
    scoring_store: str,
    home: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """None of eight secrets, the two that no redaction could know among them; and it plants
    nothing.
    """
    caplog.set_level(logging.DEBUG, "steps")
    report = evaluated([spy(), spy(dies=True)], tmp_path / "work", conformance=True)
    assert report.isolation == {"wanted": "preferred", "missing": []}
    alive, dead = report.candidates
    answers = [item.answer for item in alive.quality.items if not item.error]
    # it looked, and said what it found
    assert answers and all("PATH=" in answer for answer in answers)
    assert any(item.error and "PATH=" in item.error for item in alive.quality.items)
    assert dead.failure is not None and "PATH=" in dead.failure.log_tail
    store = Path(scoring_store.removeprefix("sqlite:///")).parent
    assert leaked(store, tmp_path, text=caplog.text) == set()
    assert not (home / "planted").exists()


def test_what_it_learns_where_nothing_isolates_is_redacted(
    spy: Callable[..., str],
    scoring_store: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Also where the kernel isolates nothing; the report says what was missing, and a policy may
    refuse.
    """
    monkeypatch.setattr(
        processes,
        "absent",
        lambda: dict.fromkeys(
            ("network", "processes", "files"), "unshare: Operation not permitted"
        ),
    )
    uri = spy()
    with pytest.raises(
        ConfigError,
        match=(
            r"^evaluate\.isolation='required': expected a machine that can isolate .*network:"
            r" unshare: Op"
        ),
    ):
        evaluate_models(
            [uri],
            config(**QUICK, isolation=Isolation.required),
            incumbent_uri=None,
            workdir=tmp_path,
        )
    report = evaluated([uri, spy(dies=True)], tmp_path / "work")
    assert (
        report.isolation is not None
        and report.isolation["missing"][0] == "network: unshare: Operation not permitted"
    )
    assert "less isolation" in report.notes[0] and "less isolation" in caplog.text
    said = " ".join(item.answer + (item.error or "") for item in report.candidates[0].quality.items)
    assert "mlflow_tracking_password = ***" in said and NETWORK in said
    store = Path(scoring_store.removeprefix("sqlite:///")).parent
    assert leaked(store, tmp_path, text=caplog.text, secrets=SECRETS_KNOWN) == set()
