"""Write one version with its evidence into a folder, to be carried to another tracking server.

Reads: ``target`` (``models:/<name>/<version>`` or ``models:/<name>@<alias>``), ``archive`` (a
folder that does not exist yet),
``signing_key`` (a PEM file), ``dry_run``.
Writes: the folder: weights, model signature, evidence, card, licence, a sha256 manifest, and with
``signing_key``
the signature ``archive.sig``; ``transfer.json`` on its run.

    mlflow run . -e export --env-manager local -P target=models:/mine@champion -P archive=/tmp/mine
"""

from steps.config.root import Config
from steps.pipeline.step import StepRun, step


@step(keys=("target", "archive", "signing_key", "dry_run"))
def export(config: Config, run: StepRun) -> str:
    import mlflow

    from steps.registry.export_archive import export as write
    from steps.registry.table import show_transfer

    done = write(config)
    mlflow.log_dict(done.to_json(), "transfer.json")
    show_transfer(done, "exported")
    return f"runs:/{run.run_id}/transfer.json"


if __name__ == "__main__":
    export()
