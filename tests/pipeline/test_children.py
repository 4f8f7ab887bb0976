"""A step that runs within its parent's process is a nested run like those of other processes."""

import mlflow
import pytest
from mlflow.tracking import MlflowClient

from steps.config.root import Config
from steps.core import tags
from steps.core.errors import StepError
from steps.pipeline.children import run_here
from steps.pipeline.definition import Body
from steps.pipeline.step import Step, StepRun

REPOSITORY = "https://git.example.org/models.git"


def step_of(body: Body) -> Step:
    return Step(body, "register", "steps.register", inputs=())


@pytest.mark.usefixtures("tracking")
def test_it_has_its_parents_origin_and_an_output_of_its_own() -> None:
    seen: list[StepRun] = []

    def body(config: Config, run: StepRun) -> str:
        assert config.report_uri == "runs:/0/report.json"
        assert config.promotion.profile == "quality"
        seen.append(run)
        return f"runs:/{run.run_id}/promotion.json"

    origin = {"mlflow.source.git.repoURL": REPOSITORY, "mlflow.note.content": "of the parent"}
    with mlflow.start_run(tags=origin) as parent:
        output = run_here(
            step_of(body), {"report_uri": "runs:/0/report.json"}, ["promotion=quality"]
        )
        active = mlflow.active_run()
        assert active is not None and active.info.run_id == parent.info.run_id
    (made,) = seen
    assert output == f"runs:/{made.run_id}/promotion.json"
    run = MlflowClient().get_run(made.run_id)
    assert run.info.status == "FINISHED"
    assert run.data.tags["mlflow.parentRunId"] == parent.info.run_id
    assert run.data.tags["mlflow.project.entryPoint"] == "register"
    assert run.data.tags["mlflow.source.git.repoURL"] == REPOSITORY
    assert run.data.tags["mlflow.note.content"] != "of the parent"
    assert run.data.tags[tags.OUTPUT] == output
    assert run.data.params["report_uri"] == "runs:/0/report.json"


@pytest.mark.usefixtures("tracking")
def test_its_failure_is_its_runs_failure() -> None:
    def body(_config: Config, _run: StepRun) -> str:
        raise StepError("the registry is away")

    with mlflow.start_run() as parent:
        with pytest.raises(StepError, match="the registry is away"):
            run_here(step_of(body), {}, [])
        (child,) = MlflowClient().search_runs(
            [parent.info.experiment_id],
            f"tags.`mlflow.parentRunId` = '{parent.info.run_id}'",
        )
    assert child.info.status == "FAILED"
