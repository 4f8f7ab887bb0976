"""Move an alias back to the version before, or to any version that it once pointed at.

Reads: ``target`` (``models:/<name>@<alias>``), ``to`` (a version; without it the previous one),
``reason``, ``force`` (against a rejection of that version), ``dry_run``.
Writes: one entry in ``<name>.history`` and the aliases it moves; ``promotion.json`` on its run.

    mlflow run . -e rollback --env-manager local -P target=models:/smollm2-135m-instruct@champion
"""

from dataclasses import replace

from steps.config.root import Config
from steps.pipeline.step import StepRun, step


@step(keys=("target", "to", "reason", "force", "dry_run", "promotion.alias", "promotion.protected"))
def rollback(config: Config, run: StepRun) -> str:
    from steps.registry import target
    from steps.registry.client import RegistryClient
    from steps.registry.notifications import announced
    from steps.registry.result import ARTIFACT
    from steps.registry.rollback import rollback as move_back
    from steps.registry.summary import show
    from steps.registry.table import show_moves

    name, alias = target.to_roll_back(config)
    promotion = announced(
        config,
        lambda: move_back(
            RegistryClient(config.promotion.retry_seconds),
            name,
            replace(config.promotion, alias=alias),
            to=config.to,
            reason=config.reason,
            force=config.force,
            dry_run=config.dry_run,
        ),
    )
    show(promotion)
    show_moves(promotion)
    return f"runs:/{run.run_id}/{ARTIFACT}"


if __name__ == "__main__":
    rollback()
