"""Steps that another step starts: through `mlflow run` in this environment, or in this process."""

import logging
import os
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import mlflow
from mlflow.projects.submitted_run import SubmittedRun

from steps.config.root import ROOT
from steps.pipeline.arguments import translate
from steps.pipeline.compose import composed
from steps.pipeline.definition import Step
from steps.pipeline.launcher import run_step


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
    submitted: SubmittedRun = mlflow.projects.run(
        str(ROOT),
        entry_point=name,
        parameters=_parameters(inputs, overrides),
        env_manager="local",
        synchronous=wait,
        experiment_id=str(active.info.experiment_id),
    )
    return submitted


def run_here(step: Step, inputs: Mapping[str, str], overrides: Sequence[str]) -> str:
    """Run a step in this process, as a run nested in the active one.

    Args:
        step: what to run.
        inputs: URIs by config key.
        overrides: in Hydra's grammar.

    Returns:
        What the step made.

    Raises:
        StepError: it failed.
    """
    parameters = _parameters(inputs, overrides)
    words = [part for key, value in parameters.items() for part in (f"--{key}", value)]
    arguments = translate(words)
    return run_step(step, composed(arguments.overrides), arguments.overrides)


def _parameters(inputs: Mapping[str, str], overrides: Sequence[str]) -> dict[str, str]:
    """Parameters of the entry point in MLproject."""
    return {**inputs, **({"overrides": shlex.join(overrides)} if overrides else {})}
