"""The chain of steps: each a child run, or an earlier run that made the same."""

import logging
import time
from collections.abc import Callable, Sequence

import psutil
from mlflow.exceptions import ExecutionException
from mlflow.projects.submitted_run import SubmittedRun
from mlflow.tracking import MlflowClient

from steps.config.root import Config, with_inputs
from steps.core import tags
from steps.core.errors import ConfigError, StepError
from steps.core.redaction import redact
from steps.pipeline.artifact_lookup import PRODUCERS, difference, find_output, load
from steps.pipeline.children import prepare_environment, run_here, submit
from steps.pipeline.definition import Step

log = logging.getLogger(__name__)
STAGES = (("fetch_model",), ("log_transformers", "log_onnx_wrapper"), ("evaluate",), ("register",))
# it is idempotent, and what it does depends on the registry of this moment
NEVER_REUSED = frozenset({"register"})
# it takes seconds, of which a process of its own would spend the most on importing MLflow
IN_THIS_PROCESS = frozenset({"register"})
# building int4 from float16 weights peaks at 3 times their size; both logged at once at 4
PEAK_PER_CHECKPOINT_BYTE = 4
PEAK_FIXED = 3 * 2**30  # bytes: two interpreters with torch


class Chain:
    """Runs the stages in order under the active run.

    Args:
        config: the composed config.
        overrides: the overrides it was composed from, passed on to every step.
        snapshot_size: bytes of the checkpoint that a ``snapshot_uri`` points at.
    """

    def __init__(
        self, config: Config, overrides: Sequence[str], snapshot_size: Callable[[str], int]
    ) -> None:
        self.config, self.snapshot_size = config, snapshot_size
        self.overrides = [
            word for word in overrides if word.lstrip("+").split("=")[0] not in PRODUCERS
        ]
        self.uris: dict[str, str] = {key: uri for key in PRODUCERS if (uri := getattr(config, key))}
        self.done = 0

    def run(self) -> str:
        """Run every stage.

        Returns:
            URI of what the last step made.

        Raises:
            StepError: a step failed.
        """
        prepare_environment()
        output = ""
        for stage in STAGES:
            todo = [name for name in stage if not self._have(name)]
            together = len(todo) > 1 and self._fits_in_memory()
            for group in [todo] if together else [[name] for name in todo]:
                output = (
                    self._run_here(*group) if IN_THIS_PROCESS & {*group} else self._run_group(group)
                )
        return output

    def _have(self, name: str) -> bool:
        """Whether the step's output was given or made before; then nothing is to be run."""
        key = next((key for key, producer in PRODUCERS.items() if producer == name), None)
        if key is None or name in NEVER_REUSED:
            return False
        if key in self.uris:
            self._say(name, f"given: {self.uris[key]}")
            return True
        if not self.config.reuse:
            return False
        step = load(name)
        output, mark = find_output(step, with_inputs(self.config, self.uris), self.uris)
        if output:
            self.uris[key] = output.uri
            self._say(name, f"reused from run {output.run_id}: {output.uri}")
            step.refresh(self.config, output.uri)
            return True
        if mark:
            log.info("%s: to run, as %s", name, difference(step, self.config, mark))
        return False

    def _run_group(self, names: Sequence[str]) -> str:
        started = time.monotonic()
        submitted: dict[str, SubmittedRun] = {}
        output = ""
        try:
            for name in names:
                log.info("%s: running", name)
                submitted[name] = self._submit(name, wait=len(names) == 1)
            for name, run in submitted.items():
                if not run.wait():
                    raise StepError(
                        f"{name} failed; what it said is above and in logs/ of its run {run.run_id}"
                    )
                output = self._take(name, run.run_id)
                self._say(name, f"{time.monotonic() - started:.0f} s")  # its URI it said itself
        finally:
            for run in submitted.values():
                run.cancel()
        return output

    def _run_here(self, name: str) -> str:
        started = time.monotonic()
        log.info("%s: running", name)
        step = load(name)
        try:
            output = run_here(step, self._inputs(step), self.overrides)
        except (ConfigError, StepError) as error:
            log.error("%s: error: %s", name, redact(str(error)))
            raise StepError(f"{name} failed; what it said is above and on its run") from error
        self._say(name, f"{time.monotonic() - started:.0f} s")
        return output

    def _inputs(self, step: Step) -> dict[str, str]:
        return {key: self.uris[key] for key in step.needs(self.config)}

    def _submit(self, name: str, *, wait: bool) -> SubmittedRun:
        try:
            return submit(name, self._inputs(load(name)), self.overrides, wait=wait)
        except ExecutionException as error:
            raise StepError(
                f"{name} failed; what it said is above and in logs/ of its run ({error})"
            ) from error

    def _take(self, name: str, run_id: str) -> str:
        output = MlflowClient().get_run(run_id).data.tags.get(tags.OUTPUT)
        if not output:
            raise StepError(f"{name} ended without an output on its run {run_id}")
        for key, producer in PRODUCERS.items():
            if producer == name:
                self.uris[key] = output
        return output

    def _fits_in_memory(self) -> bool:
        """Whether both variants can be logged side by side."""
        size = self.snapshot_size(self.uris["snapshot_uri"])
        need, free = PEAK_FIXED + PEAK_PER_CHECKPOINT_BYTE * size, psutil.virtual_memory().available
        if need > free:
            log.info(
                "logging one variant after the other: side by side needs %.1f GB and %.1f GB are"
                " free",
                need / 1e9,
                free / 1e9,
            )
        return need <= free

    def _say(self, name: str, text: str) -> None:
        self.done += 1
        log.info("[%d/%d] %s  %s", self.done, sum(map(len, STAGES)), name, text)
