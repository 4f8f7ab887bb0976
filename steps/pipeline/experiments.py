"""Whose experiments a step takes work and evidence from."""

from collections.abc import Sequence

import mlflow
from mlflow.entities import LifecycleStage
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient
from mlflow.tracking.fluent import _get_experiment_id


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
            if error.error_code not in ("PERMISSION_DENIED", "RESOURCE_DOES_NOT_EXIST"):
                raise
            continue
        if experiment is not None and experiment.lifecycle_stage == LifecycleStage.ACTIVE:
            by_id[str(experiment.experiment_id)] = experiment.name
    return by_id
