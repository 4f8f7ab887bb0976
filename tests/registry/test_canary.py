"""The canary on models that break in every way it looks for."""

import re
import subprocess
from typing import Any

import pytest

from steps.config.promotion import CanaryConfig
from steps.core.errors import StepError
from steps.registry import canary
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
