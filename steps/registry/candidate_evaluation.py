"""Evidence about a candidate: an evaluation beside the champion, as a child of the active run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import yaml
from mlflow.exceptions import ExecutionException

from steps.config import names
from steps.config.root import CONF
from steps.core.errors import StepError
from steps.pipeline.children import submit
from steps.registry import eligibility
from steps.registry.client import RegistryClient
from steps.registry.model_version import Version

# overrides of `watch` that an evaluation gets too
PASSED_ON = ("evaluate", "promotion", "generation", "store.", "experiment=", "signing_key=")
MODEL = ("model=", "model.")  # and those of the model's, where no file has its name


class EvaluationFailedError(StepError):
    """The evaluation of a candidate did not end well."""


def run_evaluation(
    registry: RegistryClient, overrides: Sequence[str], version: Version, alias: str
) -> None:
    """Run the step ``evaluate`` on one version, beside the champion.

    Args:
        registry: the tracking server.
        overrides: of `watch`.
        version: the candidate.
        alias: that is to move.

    Raises:
        EvaluationFailedError: it failed.
    """
    try:
        words = evaluation_overrides(registry, overrides, version, alias)
        submit("evaluate", {}, words, wait=True)
    except ExecutionException as error:
        raise EvaluationFailedError(
            f"its evaluation failed ({error}); what it said is in the logs/ of its run"
        ) from error


def evaluation_overrides(
    registry: RegistryClient, overrides: Sequence[str], version: Version, alias: str
) -> list[str]:
    """The overrides under which ``evaluate`` assesses one version beside the champion."""
    uris = ",".join(f"'{uri}'" for uri in eligibility.candidates(registry, version))
    given = [word for word in overrides if not word.startswith("promotion.watch")]
    return [
        *(_model_of(version.name) or [word for word in given if word.startswith(MODEL)]),
        *(word for word in given if word.startswith(PASSED_ON)),
        f"model.registered_name={names.quoted(version.name)}",
        f"promotion.alias={alias}",
        f"evaluate.candidates=[{uris}]",
    ]


def _model_of(name: str) -> list[str]:
    """The choice of the model config with this registered name, where there is one. The version is
    found by its URI, so any other config would do as well.
    """
    for path in sorted(Path(CONF, "model").glob("*.yaml")):
        if (yaml.safe_load(path.read_text(encoding="utf-8")) or {}).get("registered_name") == name:
            return [f"model={path.stem}"]
    return []
