"""Steps that another step starts, each through `mlflow run` in this environment."""

import logging
import os
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import mlflow
from mlflow.projects.submitted_run import SubmittedRun

from steps.config.root import ROOT


def prepare_environment() -> None:
    """Let children, which are started as `python` and `mlflow`, be those of this environment, and
    keep MLflow quiet about folders.
    """
    os.environ["PATH"] = os.pathsep.join(
        [str(Path(sys.executable).parent), os.environ.get("PATH", "")]
    )
    os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")
    logging.getLogger("mlflow.projects").setLevel(logging.WARNING)


def submit(
    name: str, inputs: Mapping[str, str], overrides: Sequence[str], *, wait: bool
) -> SubmittedRun:
    """Start an entry point as a child of the active run.

    Args:
        name: of the entry point.
        inputs: URIs by config key.
        overrides: in Hydra's grammar.
        wait: whether to return only when it has ended.

    Raises:
        mlflow.exceptions.ExecutionException: it was waited for and failed.
    """
    active = mlflow.active_run()
    assert active is not None, "children have a parent"
    given = {"overrides": shlex.join(overrides)} if overrides else {}
    submitted: SubmittedRun = mlflow.projects.run(
        str(ROOT),
        entry_point=name,
        parameters={**inputs, **given},
        env_manager="local",
        synchronous=wait,
        experiment_id=str(active.info.experiment_id),
    )
    return submitted
