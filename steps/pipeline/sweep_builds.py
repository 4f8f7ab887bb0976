"""Builds of a sweep: each logged by a nested run of ``log_onnx_wrapper``, or taken from an earlier
run that made the same.
"""

import logging

from mlflow.exceptions import ExecutionException
from mlflow.tracking import MlflowClient

from steps.config.root import Config, with_inputs
from steps.core import tags
from steps.pipeline.artifact_lookup import find_output, load
from steps.pipeline.children import prepare_environment, submit
from steps.pipeline.compose import compose_config
from steps.pipeline.step import StepRun

log = logging.getLogger(__name__)
# a build does not depend on them
DROPPED = ("onnx=", "evaluate=", "evaluate.", "transformers_uri=", "snapshot_uri=", "onnx_uri=")


def log_builds(config: Config, run: StepRun) -> tuple[dict[str, str], dict[str, str]]:
    """Log every build that ``evaluate.builds`` names.

    Returns:
        Model URIs by build, and the reason by build for those that could not be made.
    """
    prepare_environment()
    kept = [word for word in run.overrides if not word.lstrip("+").startswith(DROPPED)]
    given = {"snapshot_uri": run.inputs["snapshot_uri"]}
    # all before the first is built: a mistyped last one must not cost the minutes of the others
    choices = {build: compose_config([*kept, f"onnx={build}"]) for build in config.evaluate.builds}
    uris: dict[str, str] = {}
    failed: dict[str, str] = {}
    for number, (build, choice) in enumerate(choices.items(), start=1):
        earlier, _ = find_output(load("log_onnx_wrapper"), with_inputs(choice, given))
        if earlier is not None and config.reuse:
            uris[build] = earlier.uri
            log.info("[%d/%d] %s reused from run %s", number, len(choices), build, earlier.run_id)
            continue
        log.info("[%d/%d] %s: building", number, len(choices), build)
        try:
            submitted = submit("log_onnx_wrapper", given, [*kept, f"onnx={build}"], wait=True)
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
