"""Register the judged models as versions and move the aliases to the ones that passed.

Reads: ``report_uri`` (``runs:/<run>/report.json``); the config nodes ``model`` and ``promotion``.
Writes: versions, tags and aliases in the Model Registry; ``promotion.json`` on its run.

    mlflow run . -e register --env-manager local -P model=smollm2_135m
"""

from steps.config.root import Config
from steps.pipeline.step import StepRun, step


@step(inputs=("report_uri",), keys=("report_uri", "dry_run", "promotion"))
def register(config: Config, run: StepRun) -> str:
    from steps.registry.client import RegistryClient
    from steps.registry.notifications import announced
    from steps.registry.register import register as register_versions
    from steps.registry.result import ARTIFACT
    from steps.registry.summary import show

    promotion = announced(
        config,
        lambda: register_versions(
            RegistryClient(config.promotion.retry_seconds),
            run.inputs["report_uri"],
            config.promotion,
            config.model,
            dry_run=config.dry_run,
            overrides=run.overrides,
        ),
    )
    show(promotion)
    return f"runs:/{run.run_id}/{ARTIFACT}"


if __name__ == "__main__":
    register()
