"""Commands that a user copies into a shell."""

import shlex

import pytest

from steps.core.commands import mlflow_run


def test_main_needs_no_name() -> None:
    assert mlflow_run() == "mlflow run . --env-manager local"
    assert mlflow_run("evaluate") == "mlflow run . -e evaluate --env-manager local"


def test_parameters_come_in_their_order_and_overrides_last() -> None:
    words = shlex.split(
        mlflow_run("promote", {"target": "models:/a b@c", "reason": "why"}, ["a=1", "b='2'"])
    )
    assert words[7:] == [
        *("-P", "target=models:/a b@c"),
        *("-P", "reason=why"),
        *("-P", "overrides=a=1 'b='\"'\"'2'\"'\"''"),
    ]
    assert shlex.split(words[-1].removeprefix("overrides=")) == ["a=1", "b='2'"]


@pytest.mark.parametrize("project", [(".",), ("https://example.org/project", "-v", "0" * 40)])
def test_the_project_may_be_a_commit_of_a_repository(project: tuple[str, ...]) -> None:
    command = mlflow_run("register", project=project)
    assert command == f"mlflow run {' '.join(project)} -e register --env-manager local"
