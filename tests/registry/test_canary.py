"""The canary on models that break in every way it looks for."""

import os
import py_compile
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import mlflow
import pytest

from steps.config.promotion import CanaryConfig
from steps.core.errors import StepError
from steps.core.model_uri import model_id_of
from steps.evaluation.candidate import candidates_of, load
from steps.evaluation.worker_process import CandidateFailedError
from steps.registry import canary
from tests.registry import commands, scene
from tests.registry.scene import version_of

LIMITS = CanaryConfig(timeout=60, memory_limit_bytes=700_000_000, concurrency=4)


@pytest.mark.usefixtures("tracking")
def test_sound_model_passes_without_network_or_project() -> None:
    uri, digest = version_of(None)
    result = canary.run(uri, digest, LIMITS)
    assert result.passed, result.fault
    assert result.digest == digest and result.peak_rss_bytes > 50_000_000
    names = [check.name for check in result.checks]
    assert names == [
        "loads",
        "has an input example",
        "replays its input example",
        "takes messages",
        "completion shape",
        "temperature 0 repeats",
        "finish_reason",
        "usage adds up",
        "concurrent requests",
        "prompt column",
        "stays within its limits",
        "exits cleanly",
    ]


@pytest.mark.usefixtures("tracking")
@pytest.mark.parametrize(
    ("fault", "named"),
    [
        ("network", r"wanted to (reach|look up) \('192\.0\.2\.1', 80\)"),
        ("project", "No module named 'steps'"),
        pytest.param("exit", "exit code 134", marks=pytest.mark.slow),
        pytest.param("load", "these weights are broken", marks=pytest.mark.slow),
        pytest.param("shape", "expected a list with one completion a row", marks=pytest.mark.slow),
        pytest.param("random", "temperature 0 repeats", marks=pytest.mark.slow),
    ],
)
def test_broken_model_is_named(fault: str, named: str) -> None:
    uri, digest = version_of(fault)
    result = canary.run(uri, digest, LIMITS)
    assert not result.passed
    with pytest.raises(AssertionError, match=named):
        raise AssertionError(result.fault)


@pytest.mark.usefixtures("tracking")
def test_hungry_model_is_stopped() -> None:
    uri, digest = version_of("memory")
    result = canary.run(uri, digest, LIMITS)
    assert not result.passed and re.search(
        "stays within its limits: (held|asked for more memory than)", result.fault
    )


@pytest.mark.slow
@pytest.mark.usefixtures("tracking")
def test_hanging_model_is_stopped() -> None:
    uri, digest = version_of("hang")
    result = canary.run(uri, digest, CanaryConfig(timeout=15))
    assert not result.passed and "not done after promotion.canary.timeout=15 s" in result.fault
    assert result.seconds < 30


@pytest.mark.usefixtures("tracking")
def test_other_bytes_are_refused_before_anything_runs() -> None:
    uri, _ = version_of(None)
    with pytest.raises(
        StepError,
        match=(
            r"the bytes are sha256:[0-9a-f]{64}, the evidence is about sha256:other.*No reason"
            r" overrules"
        ),
    ):
        canary.run(uri, "sha256:other", LIMITS)


@pytest.mark.usefixtures("tracking")
def test_secrets_do_not_reach_the_canary(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "s3cret-s3cret")
    monkeypatch.setenv("PYTHONPATH", "/somewhere")
    seen: dict[str, str] = {}
    real = subprocess.Popen

    def spy(*words: Any, **more: Any) -> Any:
        seen.update(more.get("env") or {})
        return real(*words, **more)

    uri, digest = version_of(None)
    monkeypatch.setattr(subprocess, "Popen", spy)
    assert canary.run(uri, digest, LIMITS).passed
    assert seen and not [
        key for key, value in seen.items() if "s3cret" in value or key == "PYTHONPATH"
    ]


@pytest.mark.usefixtures("tracking")
def test_bytecode_that_somebody_put_into_the_store_is_refused_by_name() -> None:
    """Python would run it in place of the source that was judged. What Python itself writes there,
    where a model is loaded in its local store, is no reason to refuse it.
    """
    uri, digest = version_of(None)
    question = {"messages": [{"role": "user", "content": "hello"}]}
    store = stored(uri)
    cache = store / "__pycache__"
    loading = f"import mlflow; print(mlflow.pyfunc.load_model({str(store)!r}).predict({question}))"
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": ""}
    subprocess.run([sys.executable, "-c", loading], env=environment, check=True)
    assert [path.suffix for path in cache.iterdir()] == [".pyc"]
    assert canary.run(uri, digest, LIMITS).passed
    source = (store / "chat_model.py").read_text()
    other = store.parent / "other.py"
    other.write_text(source.replace("{self.name}: {asked}", "{self.name}: EVIL {asked}"))
    py_compile.compile(
        str(other),
        cfile=str(cache / f"chat_model.{sys.implementation.cache_tag}.pyc"),
        invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH,
    )
    said = subprocess.run(
        [sys.executable, "-c", loading], env=environment, check=True, capture_output=True, text=True
    )
    assert "EVIL" in said.stdout  # so it is run
    with pytest.raises(
        StepError,
        match=r"holds bytecode .* \(__pycache__/chat_model\.cpython-\d+\.pyc\): delete that in the"
        r" artifact store \(rm -r",
    ):
        canary.run(uri, digest, LIMITS)
    with pytest.raises(CandidateFailedError, match=r"holds bytecode .*chat_model"):
        (subject,) = candidates_of([uri], None, scene.config())
        load(subject, store.parent)
    shutil.rmtree(cache)
    assert canary.run(uri, digest, LIMITS).passed


@pytest.mark.usefixtures("registered")
def test_link_that_leads_out_of_the_model_is_refused(tmp_path: Path) -> None:
    """What it points at may change while the model's folder does not."""
    uri = f"models:/{scene.NAME}/1"
    store = stored(uri)
    moved = (store / "chat_model.py").rename(tmp_path / "mine.py")
    (store / "chat_model.py").symlink_to(moved)
    with pytest.raises(StepError, match=r"chat_model\.py is a link, whose bytes no digest covers"):
        commands.promote(scene.config(f"target={uri}", "alias=champion-edge"))
    (subject,) = candidates_of([uri], None, scene.config())
    with pytest.raises(CandidateFailedError, match=r"chat_model\.py is a link"):
        load(subject, tmp_path)


def stored(uri: str) -> Path:
    """The folder of a version in the local artifact store."""
    model_id = model_id_of(uri)
    location = mlflow.MlflowClient().get_logged_model(model_id).artifact_location
    return Path(str(location).removeprefix("file://"))
