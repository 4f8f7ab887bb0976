"""Whose experiments a step takes work and evidence from."""

from collections.abc import Sequence

import mlflow
from mlflow.entities import ViewType
from mlflow.tracking import MlflowClient
from mlflow.tracking.fluent import _get_experiment_id


def own() -> str:
    """Id of the experiment that this process writes to: of its run, else the one that its next run would be in."""
    run = mlflow.active_run()
    return str(run.info.experiment_id if run else _get_experiment_id())


def named(names: Sequence[str], client: MlflowClient) -> dict[str, str]:
    """Id and name of those of these experiments that are there."""
    found = {each.experiment_id: each.name for each in client.search_experiments(view_type=ViewType.ACTIVE_ONLY)} if names else {}
    return {place: name for place, name in found.items() if name in names}
