"""What the tests serve and ask: models of the user's store, what is logged of them, and rows."""

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from steps.config.onnx import OnnxConfig, Precision
from steps.pipeline.compose import compose_config
from steps.snapshots.store import Store

NAME = "a-public-name"


@dataclass
class Folders:
    """Where the checkpoint and the ONNX builds of one model are; read-only."""

    checkpoint: Path
    digest: str
    builds: dict[str, Path] = field(default_factory=dict)

    def onnx(self, precision: str) -> Path:
        """The build of one precision, made when it is first asked for."""
        from steps.snapshots import onnx_build

        if precision not in self.builds:
            config = OnnxConfig(precision=Precision(precision))
            self.builds[precision] = onnx_build.build(self.checkpoint, config, Store(), self.digest)
        return self.builds[precision]

    def shipped(self) -> Path:
        """The build that the embedded model's config asks for."""
        from steps.snapshots import onnx_build

        if "shipped" not in self.builds:
            config = compose_config(["model=smollm2_135m"]).onnx
            self.builds["shipped"] = onnx_build.build(self.checkpoint, config, Store(), self.digest)
        return self.builds["shipped"]


def folders_of(model: str) -> Folders:
    """Fetch a model into the user's store."""
    from steps.snapshots.fetch import fetch

    snapshot = fetch(compose_config([f"model={model}"]).model, Store())
    return Folders(Store().checkpoint(snapshot), snapshot.digest)


@dataclass
class Context:
    """What MLflow hands to ``load_context``."""

    artifacts: dict[str, str]
    model_config: dict[str, Any]


Open = Callable[..., Any]


@dataclass
class Logged:
    """A tracking store with logged models; URIs by variant."""

    tracking_uri: str
    uris: dict[str, str] = field(default_factory=dict)

    @property
    def environment(self) -> dict[str, str]:
        """Environment of a process that is to see them."""
        return {
            **os.environ,
            "MLFLOW_TRACKING_URI": self.tracking_uri,
            "MLFLOW_REGISTRY_URI": self.tracking_uri,
        }


def say(content: str, **settings: Any) -> dict[str, Any]:
    """A chat row of one question."""
    return {
        "messages": [{"role": "user", "content": content}],
        "temperature": 0.0,
        "max_tokens": 16,
        **settings,
    }


def text(answer: Any, choice: int = 0) -> str:
    """Text of a completion, or of a prompt's answer."""
    return (
        answer if isinstance(answer, str) else str(answer["choices"][choice]["message"]["content"])
    )
