"""Move an alias back to the version before, or to any version that it once pointed at.

Reads: ``target`` (``models:/<name>@<alias>``), ``to`` (a version; without it the previous one),
``reason``, ``dry_run``.
Writes: one entry in ``<name>.history`` and the aliases it moves; ``promotion.json`` on its run.

    mlflow run . -e rollback --env-manager local -P target=models:/smollm2-135m-instruct@champion
"""

from steps.config.root import Config
from steps.pipeline.step import StepRun, step


@step()
def rollback(config: Config, run: StepRun) -> str:
    from steps.registry.notifications import announced
    from steps.registry.promote import rollback as move_back
    from steps.registry.result import ARTIFACT
    from steps.registry.summary import show
    from steps.registry.table import show_moves

    promotion = announced(config, lambda: move_back(config))
    show(promotion)
    show_moves(promotion)
    return f"runs:/{run.run_id}/{ARTIFACT}"


if __name__ == "__main__":
    rollback()
