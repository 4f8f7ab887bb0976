"""Builds of a sweep: each logged by a nested run of ``log_onnx_wrapper``, or taken from an earlier run that made the same."""

import logging
import os
import shlex
import sys
from dataclasses import replace
from pathlib import Path

import mlflow
from mlflow.exceptions import ExecutionException
from mlflow.tracking import MlflowClient

from steps.config.root import ROOT, Config
from steps.pipeline import tags
from steps.pipeline.compose import compose_config
from steps.pipeline.handoff import find_output, load
from steps.pipeline.step import StepRun

log = logging.getLogger(__name__)
DROPPED = ("onnx=", "evaluate=", "evaluate.", "transformers_uri=", "snapshot_uri=", "onnx_uri=")  # a build does not depend on them


def log_builds(config: Config, run: StepRun) -> tuple[dict[str, str], dict[str, str]]:
    """Log every build that ``evaluate.builds`` names.

    Returns:
        Model URIs by build, and the reason by build for those that could not be made.
    """
    os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    kept = [word for word in run.overrides if not word.lstrip("+").startswith(DROPPED)]
    active = mlflow.active_run()
    assert active is not None, "a sweep has a run of its own"
    uris: dict[str, str] = {}
    failed: dict[str, str] = {}
    for number, build in enumerate(config.evaluate.builds, start=1):
        overrides = [*kept, f"onnx={build}"]
        composed = replace(compose_config(overrides), snapshot_uri=run.inputs["snapshot_uri"])
        found, _ = find_output(load("log_onnx_wrapper"), composed)
        if found is not None and config.reuse:
            uris[build] = found.uri
            log.info("[%d/%d] %s reused from run %s", number, len(config.evaluate.builds), build, found.run_id)
            continue
        log.info("[%d/%d] %s: building", number, len(config.evaluate.builds), build)
        try:
            submitted = mlflow.projects.run(
                str(ROOT),
                entry_point="log_onnx_wrapper",
                parameters={"snapshot_uri": run.inputs["snapshot_uri"], "overrides": shlex.join(overrides)},
                env_manager="local",
                experiment_id=str(active.info.experiment_id),
            )
        except ExecutionException as error:
            failed[build] = f"not built: {error}"
            log.warning("%s: %s", build, failed[build])
            continue
        output = MlflowClient().get_run(submitted.run_id).data.tags.get(tags.OUTPUT)
        if output:
            uris[build] = output
        else:
            failed[build] = "not built: its run ended without an output"
    return uris, failed
