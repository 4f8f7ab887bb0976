"""A sweep's builds are all composed before the first one is made."""

from typing import NoReturn

import pytest

from steps.config.root import Config
from steps.core.errors import ConfigError
from steps.pipeline import sweep_builds
from steps.pipeline.compose import compose_config
from steps.pipeline.step import Step, StepRun

RUN = StepRun("0" * 32, {"snapshot_uri": "runs:/0/snapshot.json"}, "", ("model=tiny_phi3",))


def test_a_mistyped_last_build_ends_the_sweep_before_the_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def find_output(_step: Step, _config: Config) -> NoReturn:
        pytest.fail("the first build was looked for")

    monkeypatch.setattr(sweep_builds, "find_output", find_output)
    with pytest.raises(ConfigError, match=r"onnx='nope': expected one of"):
        sweep_builds.log_builds(
            compose_config(["model=tiny_phi3", "evaluate.builds=[int4_cpu,nope]"]), RUN
        )
