"""Take an exported version into this tracking server. Aliases are not set: that is ``promote``'s.

Reads: ``archive`` (a folder that ``export`` wrote), ``promotion.require_signer`` (a PEM file),
``dry_run``.
Writes: a logged model, its evidence and a version; ``transfer.json`` on its run.

    mlflow run . -e import --env-manager local -P archive=/tmp/mine
"""

from steps.config.root import Config
from steps.pipeline.step import StepRun, step


@step(keys=("archive", "promotion.require_signer", "dry_run"))
def import_(config: Config, run: StepRun) -> str:
    import mlflow

    from steps.core import tags
    from steps.registry.import_archive import import_ as take
    from steps.registry.table import show_transfer

    done = take(config)
    mlflow.set_tag(tags.MODEL, done.name)
    mlflow.log_dict(done.to_json(), "transfer.json")
    show_transfer(done, "imported")
    return f"runs:/{run.run_id}/transfer.json"


if __name__ == "__main__":
    import_()
