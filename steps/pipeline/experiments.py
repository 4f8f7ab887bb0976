"""Whose experiments a step takes work and evidence from, and where their files may lie."""

from collections.abc import Iterator, Sequence

import mlflow
from mlflow.entities import LifecycleStage
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient
from mlflow.tracking.fluent import _get_experiment_id

from steps.core.artifact_places import DEFAULT_EXPERIMENT, Places

# no such experiment, or none for this user
UNKNOWN = ("PERMISSION_DENIED", "RESOURCE_DOES_NOT_EXIST")


def own() -> str:
    """Id of the experiment that this process writes to: of its run, else the one that its next run
    would be in.
    """
    run = mlflow.active_run()
    return str(run.info.experiment_id if run else _get_experiment_id())


def named(names: Sequence[str], client: MlflowClient) -> dict[str, str]:
    """Id and name of those of these experiments that are there and may be read; asked for by name,
    as anybody may make thousands.
    """
    by_id: dict[str, str] = {}
    for name in dict.fromkeys(names):
        try:
            experiment = client.get_experiment_by_name(name)
        except MlflowException as error:
            if error.error_code not in UNKNOWN:
                raise
            continue
        if experiment is not None and experiment.lifecycle_stage == LifecycleStage.ACTIVE:
            by_id[str(experiment.experiment_id)] = experiment.name
    return by_id


def places(names: Sequence[str], client: MlflowClient) -> Places:
    """Where files that others may have placed are read from: below what the tracking server hands
    out, and beside the default experiment, this process's own and those of these names.

    The experiment of a version's logged model is none of them: whoever made the version chose it.
    """

    def locations() -> Iterator[str]:
        for experiment_id in {DEFAULT_EXPERIMENT, own(), *named(names, client)}:
            try:
                yield str(client.get_experiment(experiment_id).artifact_location)
            except MlflowException as error:
                if error.error_code not in UNKNOWN:
                    raise

    return Places.around(locations(), mlflow.get_tracking_uri())
