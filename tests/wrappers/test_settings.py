"""Threads: what is set, else the cores this process may use."""

import os
import subprocess
import sys
from typing import Any

import pytest
from mlflow.exceptions import MlflowException

from steps.config.root import ROOT
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
