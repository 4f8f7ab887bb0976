"""Move an alias, ``champion`` unless told otherwise, to a version that its evidence and a canary
speak for.

Reads: ``target`` (``models:/<name>/<version>``, ``models:/<name>@<alias>``; ``models:/<name>`` or
nothing lets the policy choose), ``alias``, ``force`` with ``reason``, ``dry_run``; the node
``promotion``.
Writes: one entry in ``<name>.history`` and the aliases it moves; ``promotion.json`` on its run.

    mlflow run . -e promote --env-manager local -P target=models:/smollm2-135m-instruct@challenger
"""

from steps.config.root import Config
from steps.pipeline.step import StepRun, step


@step(keys=("target", "alias", "force", "reason", "dry_run", "report_uri", "promotion"))
def promote(config: Config, run: StepRun) -> str:
    from steps.registry import target
    from steps.registry.client import RegistryClient
    from steps.registry.notifications import announced
    from steps.registry.promote import promote as move
    from steps.registry.result import ARTIFACT
    from steps.registry.summary import show
    from steps.registry.table import show_moves

    promotion = announced(
        config,
        lambda: move(
            RegistryClient(config.promotion.retry_seconds),
            target.parse(config.target, config),
            config.promotion,
            config.model,
            alias=target.alias_of(config),
            force=config.force,
            reason=config.reason,
            report_uri=config.report_uri,
            dry_run=config.dry_run,
            overrides=run.overrides,
        ),
    )
    show(promotion)
    show_moves(promotion)
    return f"runs:/{run.run_id}/{ARTIFACT}"


if __name__ == "__main__":
    promote()
