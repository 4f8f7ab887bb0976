"""The model_config of a logged model: its bounds, those of the config beside them, and threads."""

import os
import subprocess
import sys
from dataclasses import asdict, fields
from typing import Any

import pytest
from mlflow.exceptions import MlflowException

from steps.config.generation import GenerationConfig
from steps.config.onnx import ServingConfig
from steps.config.root import ROOT
from steps.core.errors import ConfigError
from steps.wrappers.served.settings import Settings

COUNT = "from steps.wrappers.served.settings import Settings; print(Settings().intra_op_threads)"


def counted(**environment: str) -> int:
    done = subprocess.run(
        [sys.executable, "-c", COUNT],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    return int(done.stdout)


def test_threads_that_are_set_are_taken() -> None:
    assert Settings(threads=7).intra_op_threads == 7


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system has no affinity")
def test_threads_stay_within_the_affinity() -> None:
    mine = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(mine)})  # a child inherits it
        assert counted() == 1
    finally:
        os.sched_setaffinity(0, mine)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"provider_options": {"device_id": "1"}}, "provider_options=.*name the provider"),
        (
            {"provider_options": {"device_id": "1"}, "execution_provider": "cpu"},
            "provider_options=.*name the provider",
        ),
        ({"temperature": 2.5}, "temperature=2.5: expected a number from 0 to 2"),
        ({"name": ""}, "name='': expected a name"),
        ({"name": None}, "name=None: expected a name"),
        ({"execution_provider": ""}, "execution_provider='': expected a provider"),
    ],
)
def test_what_would_be_ignored_or_fail_later_is_refused(
    config: dict[str, Any], message: str
) -> None:
    with pytest.raises(MlflowException, match=message) as caught:
        Settings.read(config)
    assert caught.value.error_code == "INVALID_PARAMETER_VALUE"


def test_options_of_a_named_provider_are_taken() -> None:
    assert Settings.read(
        {"execution_provider": "cuda", "provider_options": {"device_id": "1"}}
    ).provider_options == {"device_id": "1"}
    assert Settings.read({"provider_options": {}}).provider_options == {}


def test_threads_can_be_limited_from_outside() -> None:
    assert counted(LOKY_MAX_CPU_COUNT="1") == 1


def test_config_and_settings_have_the_same_fields_and_defaults() -> None:
    config = {**asdict(GenerationConfig()), **asdict(ServingConfig())}
    settings = asdict(Settings())
    assert {"name", *config} == settings.keys()
    assert {key: value or None for key, value in config.items()} == {
        key: settings[key] or None for key in config
    }
    assert asdict(Settings.read(config)) == {"name": "model", **config}


@pytest.mark.parametrize(
    ("key", "least"),
    [
        ("threads", 0),
        ("max_batch_size", 1),
        ("max_queue", 1),
        ("prefix_cache_bytes", 0),
        ("max_new_tokens", 1),
        ("request_timeout", 0.001),
        ("temperature", 0),
    ],
)
def test_config_and_settings_have_the_same_bounds(key: str, least: float) -> None:
    kind: Any = (
        GenerationConfig if key in {f.name for f in fields(GenerationConfig)} else ServingConfig
    )
    below = least - 1
    assert getattr(kind(**{key: least}), key) == getattr(Settings.read({key: least}), key) == least
    with pytest.raises(ConfigError, match=f"{key}={below}: expected "):
        kind(**{key: below})
    with pytest.raises(MlflowException, match=f"model_config.{key}={below}: expected "):
        Settings.read({key: below})


@pytest.mark.parametrize("field", fields(Settings), ids=lambda field: field.name)
def test_every_setting_has_bounds(field: Any) -> None:
    assert field.metadata["fits"](field.default)
    assert not field.metadata["fits"]({1, 2})
