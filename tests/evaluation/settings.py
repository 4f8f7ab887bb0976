"""Configs of evaluations that take seconds."""

from pathlib import Path
from typing import Any

from steps.config.evaluate import EvaluateConfig, FidelityConfig, SpeedConfig
from steps.config.model import ModelConfig, Source
from steps.config.onnx import OnnxConfig
from steps.config.promotion import PromotionConfig
from steps.config.root import Config

PACK = Path(__file__).with_name("packs") / "tiny"
FAST = SpeedConfig(rounds=2, prompt_tokens=[32], concurrency=[1, 4], new_tokens=8, burst_tokens=4)
QUICK = {"speed": SpeedConfig(enabled=False), "conformance": False}


def config(**evaluate: Any) -> Config:
    """The config of an evaluation, with these settings of ``evaluate``."""
    settings: dict[str, Any] = {
        "pack": str(PACK),
        "speed": FAST,
        "fidelity": FidelityConfig(enabled=False),
        "traces": False,
        **evaluate,
    }
    return Config(
        model=ModelConfig(registered_name="clerk", source=Source.folder, path="/nowhere"),
        onnx=OnnxConfig(),
        evaluate=EvaluateConfig(**settings),
        promotion=PromotionConfig(),
    )
