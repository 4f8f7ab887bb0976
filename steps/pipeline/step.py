"""``@step``: one decorator owns the command line, the config, the MLflow run and the logs, so that
a body is only its work.
"""

from collections.abc import Callable, Mapping

from steps.config.root import Config
from steps.pipeline import definition
from steps.pipeline.definition import (
    Body,
    Inputs,
    Packages,
    StepRun,
    never_stale,
    nothing_to_refresh,
    reads_nothing_else,
)

__all__ = ["Step", "StepRun", "step"]


class Step(definition.Step):
    """An entry point that runs from the command line when it is called."""

    def __call__(self) -> None:
        from steps.pipeline.launcher import launch

        launch(self)


def step(
    *,
    reads: tuple[str, ...] = (),
    inputs: Inputs = (),
    files: tuple[str, ...] = (),
    presentation: tuple[str, ...] = (),
    packages: Packages = (),
    stale: Callable[[Config, str], str | None] = never_stale,
    also_reads: Callable[[Config], Mapping[str, str]] = reads_nothing_else,
    output_digest: Callable[[str], str] | None = None,
    refresh: Callable[[Config, str], None] = nothing_to_refresh,
    makes_run: bool = True,
    keys: tuple[str, ...] = (),
    says_output: bool = True,
) -> Callable[[Body], Step]:
    """Make a function an entry point; the arguments are those of :class:`Step`."""

    def decorate(body: Body) -> Step:
        name = body.__name__.rstrip("_")  # as `mlflow run . -e import` has it
        return Step(
            body,
            name,
            f"steps.{body.__name__}",
            reads,
            inputs,
            files,
            presentation,
            packages,
            stale,
            also_reads,
            output_digest,
            refresh,
            makes_run,
            keys,
            says_output,
        )

    return decorate
