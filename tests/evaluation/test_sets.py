"""The shipped evaluation sets compose, and bad settings are named."""

from collections.abc import Callable

import pytest

from steps.config.evaluate import EvaluateConfig, FidelityConfig, SpeedConfig
from steps.config.root import CONF
from steps.core.errors import ConfigError
from steps.evaluation import packs
from steps.pipeline.compose import compose_config


@pytest.mark.parametrize("name", sorted(file.stem for file in (CONF / "evaluate").glob("*.yaml")))
def test_set_composes_and_its_pack_loads(name: str) -> None:
    config = compose_config([f"evaluate={name}"]).evaluate
    assert packs.load(config.pack).take(config.max_items).items
    for build in config.builds:
        compose_config([f"onnx={build}"])


def test_standard_is_everything() -> None:
    config = compose_config(["evaluate=standard"]).evaluate
    assert config.max_items is None and config.pack == "core" and config.fidelity.tokens >= 20_000
    assert config.conformance and config.speed.enabled and config.speed.concurrency == [1, 4, 8]


@pytest.mark.parametrize(
    ("name", "twice", "four_times"),
    [("balanced", 0.93, 0.87), ("edge", 0.75, 0.56), ("quality", 0.983, 0.966)],
)
def test_profiles_trade_what_their_comments_say(name: str, twice: float, four_times: float) -> None:
    """Share of the best score at which a model that is so many times faster and smaller is as good
    as the best.
    """
    weights = compose_config([f"promotion={name}"]).promotion.weights
    exponent = (weights.latency + weights.memory + weights.size) / weights.quality
    assert (2**-exponent, 4**-exponent) == pytest.approx((twice, four_times), abs=0.006)


@pytest.mark.parametrize(
    ("make", "field"),
    [
        (lambda: EvaluateConfig(max_new_tokens=0), r"evaluate\.max_new_tokens=0"),
        (lambda: EvaluateConfig(max_items=0), r"evaluate\.max_items=0"),
        (lambda: EvaluateConfig(request_timeout=0), r"evaluate\.request_timeout=0"),
        (lambda: EvaluateConfig(memory_limit_bytes=-1), r"evaluate\.memory_limit_bytes=-1"),
        (lambda: EvaluateConfig(candidates=["./model"]), r"evaluate\.candidates='\./model'"),
        (lambda: FidelityConfig(window=2), r"evaluate\.fidelity\.window=2"),
        (lambda: FidelityConfig(tokens=10), r"evaluate\.fidelity\.tokens=10"),
        (lambda: SpeedConfig(rounds=0), r"evaluate\.speed\.rounds=0"),
        (lambda: SpeedConfig(concurrency=[0]), r"evaluate\.speed\.concurrency=\[0\]"),
    ],
)
def test_bad_setting_is_named(make: Callable[[], object], field: str) -> None:
    with pytest.raises(ConfigError, match=field):
        make()
