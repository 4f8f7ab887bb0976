"""The composed config: one for all steps. ``conf/config.yaml`` chooses, these dataclasses type."""

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING

from steps.config.evaluate import EvaluateConfig
from steps.config.generation import GenerationConfig
from steps.config.model import ModelConfig
from steps.config.monitor import MonitorConfig
from steps.config.notifications import NotificationsConfig
from steps.config.onnx import OnnxConfig
from steps.config.promotion import PromotionConfig
from steps.config.serve import ServeConfig
from steps.core.errors import ConfigError

ROOT = Path(__file__).resolve().parents[2]  # the project root
CONF = ROOT / "conf"


@dataclass
class StoreConfig:
    """Content-addressed store of weights and builds."""

    # folder; null is $SLM_STORE, or slm-promote in the user's cache directory
    path: str | None = None


class HistoryFormat(Enum):
    """How `history` prints its entries."""

    table = "table"  # newest first
    json = "json"  # oldest first


@dataclass
class Config:
    """Everything a step can read."""

    model: ModelConfig = MISSING
    onnx: OnnxConfig = MISSING
    evaluate: EvaluateConfig = MISSING
    promotion: PromotionConfig = MISSING
    serve: ServeConfig = MISSING
    monitor: MonitorConfig = MISSING
    generation: GenerationConfig = field(default_factory=GenerationConfig)
    store: StoreConfig = field(default_factory=StoreConfig)
    notifications: NotificationsConfig = field(default_factory=NotificationsConfig)

    # inputs, as URIs; what a step is not given it looks for among the finished runs
    snapshot_uri: str | None = None  # runs:/<run>/snapshot.json
    transformers_uri: str | None = None  # models:/m-…
    onnx_uri: str | None = None  # models:/m-…
    report_uri: str | None = None  # runs:/<run>/report.json

    # what to promote, roll back, approve, reject, show, export or import
    # models:/<name>/<version>, models:/<name>@<alias> or models:/<name>; null lets the policy
    # choose
    target: str | None = None
    alias: str | None = None  # alias to move; null is promotion.alias
    to: int | None = None  # version that a rollback returns to; null is the previous one
    archive: str | None = None  # folder of an exported version
    force: bool = False  # overrule the policy, never the canary or the digest; needs a reason
    reason: str | None = None  # why, in the words of whoever asks; kept in the history
    dry_run: bool = False  # say what would change and change nothing
    format: HistoryFormat = HistoryFormat.table  # of `history`: table or json
    # newest entries that `history` shows; null is fifty in a table, and all of them as JSON
    limit: int | None = None
    # PEM file of a private key, EC P-256 (or, but for archives, Ed25519): signs reports, approvals,
    # rejections and exported archives
    signing_key: str | None = None

    experiment: str = "slm-promote"  # MLflow experiment, where `mlflow run` has not chosen one
    # main takes finished runs with the same fingerprint instead of running a step again
    reuse: bool = True

    def __post_init__(self) -> None:
        if self.limit is not None and self.limit < 1:
            raise ConfigError("limit", str(self.limit), "a number of entries of at least 1")


def with_inputs(config: Config, uris: Mapping[str, str]) -> Config:
    """A copy of ``config`` with these input URIs, by config key."""
    copied = copy.copy(config)
    for key, uri in uris.items():
        setattr(copied, key, uri)
    return copied


def register() -> None:
    """Put the schemas into Hydra's ConfigStore."""
    store = ConfigStore.instance()
    store.store(name="schema", node=Config)
    for group, node in (
        ("model", ModelConfig),
        ("onnx", OnnxConfig),
        ("evaluate", EvaluateConfig),
        ("promotion", PromotionConfig),
        ("serve", ServeConfig),
        ("monitor", MonitorConfig),
    ):
        store.store(group=group, name="schema", node=node)
