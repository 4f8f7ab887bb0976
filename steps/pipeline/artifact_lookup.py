"""How a step finds what an earlier one made: by URI, and without one by fingerprint."""

import importlib
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import mlflow
from mlflow.entities import Run
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient
from mlflow.utils.mlflow_tags import MLFLOW_SOURCE_TYPE

from steps.config.root import Config, with_inputs
from steps.core import digest, search, tags
from steps.core.artifact_places import DEFAULT_EXPERIMENT
from steps.core.commands import mlflow_run, word
from steps.core.errors import StepError
from steps.core.model_uri import model_id_of
from steps.pipeline import experiments
from steps.pipeline.definition import Step
from steps.pipeline.fingerprint import Fingerprint

log = logging.getLogger(__name__)

# which step makes what a config key points at
PRODUCERS = {
    "snapshot_uri": "fetch_model",
    "transformers_uri": "log_transformers",
    "onnx_uri": "log_onnx_wrapper",
    "report_uri": "evaluate",
}


@dataclass(frozen=True)
class Found:
    """A finished run whose output can be taken."""

    run_id: str
    uri: str


def load(name: str) -> Step:
    """The step of an entry point."""
    step = getattr(importlib.import_module(f"steps.{name}"), name)
    assert isinstance(step, Step)
    return step


def resolve_inputs(step: Step, config: Config, overrides: Sequence[str]) -> dict[str, str]:
    """A URI for each of the step's inputs: as given, else of the newest finished run whose
    fingerprint matches.

    Raises:
        StepError: nothing was given and no run matches; names the command that makes one.
    """
    inputs: dict[str, str] = {}
    for key in step.needs(config):
        given = getattr(config, key)
        if given:
            inputs[key] = given
            continue
        producer = load(PRODUCERS[key])
        output, mark = find_output(producer, config)
        if output is None:
            missing = (
                [producer.name] if mark else [*_missing_inputs(producer, config), producer.name]
            )
            why = (
                difference(producer, config, mark)
                if mark
                else f"{' and '.join(missing[:-1])} first"
            )
            here = MlflowClient().get_experiment(experiments.own()).name
            raise StepError(
                f"{key} is not given and no finished run of {producer.name} in the experiment"
                f" {here!r} fits this config ({why}{_in_default(producer, config)}); make one:"
                f" {' && '.join(_command(name, overrides) for name in missing)}"
            )
        log.info(
            "%s: taking %s from run %s, whose fingerprint matches", key, output.uri, output.run_id
        )
        inputs[key] = output.uri
    return inputs


def _command(name: str, overrides: Sequence[str]) -> str:
    """The command of an entry point whose run is in this process's experiment."""
    active = mlflow.active_run()
    if active is None or active.data.tags.get(MLFLOW_SOURCE_TYPE) == "PROJECT":
        return mlflow_run(name, overrides=overrides)
    return " ".join(["python", "-m", f"steps.{name}", *map(word, overrides)])


def _in_default(step: Step, config: Config) -> str:
    """A hint at the default experiment, in which `mlflow run` makes runs, where it has some."""
    if experiments.own() == DEFAULT_EXPERIMENT:
        return ""
    wanted = {tags.STEP: step.name, tags.MODEL: config.model.registered_name}
    if not _finished_in([DEFAULT_EXPERIMENT], wanted):
        return ""
    name = MlflowClient().get_experiment(DEFAULT_EXPERIMENT).name
    return f"; the experiment {name!r} has finished runs of it: pass experiment={name}"


def _missing_inputs(step: Step, config: Config) -> list[str]:
    """The steps that must run before ``step`` can, in order: those that make its inputs and have
    not.
    """
    names: list[str] = []
    for key in step.needs(config):
        if getattr(config, key):
            continue
        producer = load(PRODUCERS[key])
        output, mark = find_output(producer, config)
        if output is None:
            names += [*([] if mark else _missing_inputs(producer, config)), producer.name]
    return list(dict.fromkeys(names))


def find_output(
    step: Step, config: Config, given: Mapping[str, str] | None = None
) -> tuple[Found | None, Fingerprint | None]:
    """The newest finished run of ``step`` that fits ``config``, and the fingerprint that was looked
    for.

    Args:
        step: the step whose output is wanted.
        config: the composed config.
        given: URIs of the step's inputs, where they are known; the others are looked for.
    """
    uris: dict[str, str] = {}
    for key in step.needs(config):
        uri = (given or {}).get(key) or getattr(config, key)
        if not uri:
            found, _ = find_output(load(PRODUCERS[key]), config)
            if found is None:
                return None, None
            uri = found.uri
        uris[key] = uri
    mark = step.fingerprint(
        with_inputs(config, uris), {key: input_digest(key, uri) for key, uri in uris.items()}
    )
    for run in finished_runs({tags.STEP: step.name, tags.FINGERPRINT: mark.digest}, config):
        output = run.data.tags.get(tags.OUTPUT)
        if output and exists(output) and step.stale(config, output) is None:
            return Found(run.info.run_id, output), mark
    return None, mark


def difference(step: Step, config: Config, mark: Fingerprint) -> str:
    """Why no finished run fits: what is wrong with the newest of this fingerprint, else what
    differs from the newest for this model.
    """
    for run in finished_runs({tags.STEP: step.name, tags.FINGERPRINT: mark.digest}, config):
        output = run.data.tags.get(tags.OUTPUT, "")
        if not output or not exists(output):
            return f"what run {run.info.run_id} made is gone: {output or 'it has no output'}"
        reason = step.stale(config, output)
        return (
            f"run {run.info.run_id} made {output}, and since then {reason}"
            if reason
            else f"run {run.info.run_id} has just ended"
        )
    for run in finished_runs(
        {tags.STEP: step.name, tags.MODEL: config.model.registered_name}, config
    ):
        changed = mark.differs_from(json.loads(run.data.tags.get(tags.PARTS, "{}")))
        return f"{', '.join(changed)} changed since run {run.info.run_id}"
    return "there is no finished run of it yet"


def finished_runs(with_tags: Mapping[str, str], config: Config) -> list[Run]:
    """Finished runs with these tags, newest first: of this process's own experiment and of those in
    ``promotion.evidence.experiments``.

    Tags are written by whoever may edit an experiment, and anybody may have one of his own; what
    lies elsewhere is not taken over.
    """
    named = experiments.named(config.promotion.evidence.experiments, MlflowClient())
    return _finished_in(list(dict.fromkeys([experiments.own(), *named])), with_tags)


def _finished_in(experiment_ids: list[str], with_tags: Mapping[str, str]) -> list[Run]:
    words = [
        "attributes.status = 'FINISHED'",
        *(search.equals(f"tags.`{key}`", value) for key, value in with_tags.items()),
    ]
    return list(
        MlflowClient().search_runs(
            experiment_ids,
            " AND ".join(words),
            order_by=["attributes.start_time DESC"],
            max_results=20,
        )
    )


def input_digest(key: str, uri: str) -> str:
    """Digest of a step's input, as the step that makes it defines it.

    Args:
        key: the input's config key, such as ``snapshot_uri``.
        uri: what it points at.

    Raises:
        StepError: nothing is there.
    """
    return (load(PRODUCERS[key]).output_digest or digest_of)(uri)


def digest_of(uri: str) -> str:
    """Digest of what a URI points at: of the logged model's bytes, or of the file.

    Raises:
        StepError: nothing is there.
    """
    client = MlflowClient()
    if uri.startswith("models:/"):
        model_id = model_id_of(uri)
        try:
            return client.get_logged_model(model_id).tags.get(tags.DIGEST) or model_id
        except MlflowException as error:
            raise StepError(f"{uri} cannot be read: {error}") from error
    if uri.startswith("runs:/"):
        return _file_digest(uri)
    raise StepError(f"{uri} is not an input URI; expected runs:/<run>/<file> or models:/…")


@cache
def _file_digest(uri: str) -> str:
    with TemporaryDirectory() as folder:
        try:
            return "sha256:" + digest.sha256_of(
                Path(mlflow.artifacts.download_artifacts(uri, dst_path=folder))
            )
        except (MlflowException, OSError) as error:
            raise StepError(f"{uri} cannot be read: {error}") from error


def read_text(uri: str) -> str:
    """The text of a run's artifact.

    Raises:
        StepError: it is not there.
    """
    try:
        return str(mlflow.artifacts.load_text(uri))
    except (MlflowException, OSError) as error:
        raise StepError(f"{uri} cannot be read: {error}") from error


def exists(uri: str) -> bool:
    """Whether the artifact behind a URI is still there."""
    client = MlflowClient()
    try:
        if uri.startswith("models:/"):
            model_id = model_id_of(uri)
            return client.get_logged_model(model_id).status == "READY" and bool(
                client.list_logged_model_artifacts(model_id)
            )
        run_id, _, path = uri.removeprefix("runs:/").partition("/")
        return any(item.path == path for item in client.list_artifacts(run_id))
    except (MlflowException, StepError, OSError):
        return False
