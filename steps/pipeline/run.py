"""The MLflow run of a step: claimed or made, described, and never left RUNNING."""

import json
import logging
import os
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path

import mlflow
from hydra.core.hydra_config import HydraConfig
from mlflow.entities import Param
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient
from mlflow.utils import mlflow_tags
from omegaconf import DictConfig, OmegaConf

from steps.config.root import ROOT, Config
from steps.core import model_uri, tags, tracking_store
from steps.core.commands import mlflow_run
from steps.core.errors import ConfigError, StepError, Terminated
from steps.core.redaction import redact, redact_leaves, redact_override
from steps.pipeline.definition import Step, StepRun

log = logging.getLogger(__name__)
# it announces every new experiment
logging.getLogger("mlflow.tracking.fluent").setLevel(logging.WARNING)
PARAM_BATCH = 100  # most parameters MLflow takes in one call
PARAM_LENGTH = 6000  # characters MLflow keeps of a parameter's value
# tags of MLflow Projects that a run shares with the one it is nested in
ORIGIN = frozenset({
    mlflow_tags.MLFLOW_SOURCE_NAME, mlflow_tags.MLFLOW_SOURCE_TYPE, mlflow_tags.MLFLOW_GIT_COMMIT,
    mlflow_tags.MLFLOW_GIT_BRANCH, mlflow_tags.MLFLOW_GIT_REPO_URL, mlflow_tags.MLFLOW_PROJECT_ENV,
    mlflow_tags.MLFLOW_PROJECT_BACKEND,
})  # fmt: skip


class Run:
    """An active MLflow run and what every step writes on it."""

    def __init__(self, run_id: str, *, nested: bool = False) -> None:
        self.run_id, self.nested = run_id, nested
        self.client = MlflowClient()
        self.subject = ""

    def tag(self, key: str, value: str) -> None:
        self.client.set_tag(self.run_id, key, value)

    def record(self, step: Step, config: Config, cfg: DictConfig, overrides: Sequence[str]) -> None:
        """Write config, overrides, commit, package versions and the repeating command."""
        self.subject = subject(step, config)
        shown = OmegaConf.create(redact_leaves(OmegaConf.to_container(cfg, enum_to_str=True)))
        shown.model.registered_name = config.model.registered_name  # a name, not what it follows
        mlflow.log_text(OmegaConf.to_yaml(shown), "config.yaml")
        known = self.client.get_run(self.run_id).data.params
        leaves = {key: value[:PARAM_LENGTH] for key, value in leaves_of(shown) if key not in known}
        params = [Param(key, value) for key, value in leaves.items()]
        for start in range(0, len(params), PARAM_BATCH):
            self.client.log_batch(self.run_id, params=params[start : start + PARAM_BATCH])
        self.tag(tags.STEP, step.name)
        self.tag(tags.MODEL, self.subject)
        self.tag("mlflow.runName", f"{step.name} {self.subject}")
        self.record_origin(step, overrides)

    def record_origin(
        self, step: Step, overrides: Sequence[str], flags: Sequence[str] = ()
    ) -> None:
        """Write overrides, commit, package versions and the repeating command."""
        mlflow.log_text(
            "".join(f"{name}=={version}\n" for name, version in installed()), "packages.txt"
        )
        shown = [redact_override(word) for word in overrides]
        command = repeating_command(
            step.name, [*flags, *shown], self.client.get_run(self.run_id).data.tags
        )
        commit, dirty = git_state()
        self.tag(tags.OVERRIDES, shlex.join(shown))
        self.tag(tags.COMMAND, command)
        self.tag(tags.GIT_COMMIT, commit)
        self.tag(tags.GIT_DIRTY, dirty)
        self.tag("mlflow.note.content", f"{summary(step)}\n\nTo repeat it:\n\n    {command}\n")

    def describe(
        self, step: Step, config: Config, inputs: Mapping[str, str], overrides: tuple[str, ...]
    ) -> StepRun:
        """Fingerprint the step with its inputs, tag the run with it, and give the body what it
        needs.
        """
        from steps.pipeline.artifact_lookup import input_digest

        mark = step.fingerprint(
            config, {key: input_digest(key, uri) for key, uri in inputs.items()}
        )
        for key, uri in inputs.items():
            self.tag(tags.INPUT + key, redact(uri))
        self.tag(tags.PARTS, json.dumps(dict(mark.parts), sort_keys=True))
        self.tag(tags.FINGERPRINT, mark.digest)
        return StepRun(self.run_id, inputs, mark.digest, overrides)

    def finish(self, step: Step, output: str) -> None:
        """Hand ``output`` to whoever comes next."""
        self.tag(tags.OUTPUT, output)
        if step.says_output:
            log.info("%s for %s → %s", step.name, self.subject, output)


def subject(step: Step, config: Config) -> str:
    """What a run of the step is about: the registered model of ``target`` or the folder ``archive``
    where the step takes one, else the config's model.
    """
    named = model_uri.parse(config.target) if config.target and "target" in step.keys else None
    if named and (name := named.name or named.model_id):
        return name
    if config.archive and "archive" in step.keys and "target" not in step.keys:
        return Path(config.archive).name
    return config.model.registered_name


@contextmanager
def opened(name: str, experiment: str) -> Iterator[Run]:
    """The run `mlflow run` made for this process, a nested one, or a new one; ended with the truth.

    Raises:
        StepError: the tracking server cannot be reached or refuses.
    """
    uri = mlflow.get_tracking_uri()
    claimed = bool(os.environ.get("MLFLOW_RUN_ID"))
    tracking_store.require(uri, claimed=claimed)
    logged = _log_size()
    try:
        active = _start(name, experiment)
    except MlflowException as error:
        said = f"MLflow at {redact(uri)} cannot make a run: {error}"
        cure = tracking_store.relative_cure(uri) if claimed else None
        raise StepError(f"{said}; {cure}" if cure else said) from error
    run = Run(active.info.run_id, nested=mlflow_tags.MLFLOW_PARENT_RUN_ID in active.data.tags)
    status = "FAILED"
    try:
        yield run
        status = "FINISHED"
    except Terminated:
        raise
    except KeyboardInterrupt:
        status = "KILLED"
        raise
    finally:
        try:
            upload_log(name, logged)
        except Exception as error:  # noqa: BLE001 (of any artifact store's client: the run's status is worth more than its log)
            log.warning(
                "the log could not be uploaded to run %s: %s", run.run_id, redact(str(error))
            )
        finally:
            mlflow.end_run(status)


def _start(name: str, experiment: str) -> mlflow.ActiveRun:
    if parent := mlflow.active_run():
        origin = {key: value for key, value in parent.data.tags.items() if key in ORIGIN}
        return mlflow.start_run(
            run_name=name,
            nested=True,
            tags={**origin, mlflow_tags.MLFLOW_PROJECT_ENTRY_POINT: name},
        )
    if not any(os.environ.get(key) for key in ("MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_ID")):
        mlflow.set_experiment(os.environ.get("MLFLOW_EXPERIMENT_NAME") or experiment)
    return mlflow.start_run(run_name=None if os.environ.get("MLFLOW_RUN_ID") else name)


def name_refused(name: str, error: ConfigError) -> None:
    """Say on the run that `mlflow run` made why nothing was run."""
    if run_id := os.environ.get("MLFLOW_RUN_ID"):
        write_name(run_id, f"{name} refused: {error.field or 'a file'}", redact(str(error)))


def write_name(run_id: str, name: str, note: str = "") -> None:
    """Name a run that `mlflow run` made, which else has a random name, and describe it.

    It is only logged where the server refuses.
    """
    try:
        client = MlflowClient()
        client.set_tag(run_id, "mlflow.runName", name)
        if note:
            client.set_tag(run_id, "mlflow.note.content", note)
    except MlflowException as refused:
        log.warning("run %s could not be named: %s", run_id, redact(str(refused)))


def _log_file() -> Path | None:
    """Hydra's log of this job; the parent of a multirun has none of its own."""
    if not HydraConfig.initialized():
        return None
    job = HydraConfig.get()
    file = Path(job.runtime.output_dir) / f"{job.job.name}.log"
    return file if file.is_file() else None


def _log_size() -> int:
    file = _log_file()
    return file.stat().st_size if file else 0


def upload_log(name: str, start: int) -> None:
    """Put what Hydra's log has from byte ``start`` on on the active run, as that of step
    ``name``.
    """
    if file := _log_file():
        said = file.read_bytes()[start:].decode("utf-8", "replace")
        mlflow.log_text(redact(said), f"logs/{name}.log")


def installed() -> list[tuple[str, str]]:
    """Every installed distribution and its version, sorted by name."""
    return sorted(
        {(dist.name.lower(), dist.version) for dist in metadata.distributions() if dist.name}
    )


def leaves_of(node: object, prefix: str = "") -> Iterator[tuple[str, str]]:
    """Dotted key and text of every leaf of a config."""
    if isinstance(node, DictConfig):
        for key in map(str, node):
            yield from leaves_of(node[key], f"{prefix}.{key}" if prefix else key)
    else:
        yield prefix, "null" if node is None else str(node)


def git_state(root: Path = ROOT) -> tuple[str, str]:
    """The commit of the project, and whether the work tree differs from it: ``clean``, ``dirty`` or
    ``unknown``.
    """

    def git(*words: str) -> str:
        return subprocess.run(
            ["git", "-C", str(root), *words], capture_output=True, text=True, check=True
        ).stdout.strip()

    try:
        return git("rev-parse", "HEAD"), "dirty" if git("status", "--porcelain") else "clean"
    except (OSError, subprocess.CalledProcessError):
        return "unknown", "unknown"


def repeating_command(name: str, overrides: Sequence[str], run_tags: Mapping[str, str]) -> str:
    """The command that repeats a run, from the project's URL and commit when it was run from
    one.
    """
    url = run_tags.get("mlflow.source.git.repoURL")
    commit = run_tags.get("mlflow.source.git.commit")
    # where MLflow clones a project it is given by URL
    cloned = ROOT.is_relative_to(tempfile.gettempdir())
    project = (url, "-v", commit) if cloned and url and commit and "://" in url else (".",)
    return mlflow_run(name, overrides=overrides, project=project)


def summary(step: Step) -> str:
    """First sentence of the entry script's docstring, in one line."""
    module = sys.modules.get(step.module) or sys.modules["__main__"]
    return " ".join((module.__doc__ or step.name).strip().partition("\n\n")[0].split())
