"""Show who or what moved which alias, from where to where, when, why, and on which evidence.

Reads: ``target`` (``models:/<name>``), ``limit`` (newest entries to show), ``format`` (``table`` or
``json``); nothing else, so a user who may only read can run it.
Writes: the entries to the screen; ``history.json`` on the run, where `mlflow run` made one.

    mlflow run . -e history --env-manager local -P target=models:/smollm2-135m-instruct
"""

from steps.config.root import Config, HistoryFormat
from steps.pipeline.step import StepRun, step


@step(makes_run=False, keys=("target", "limit", "format"))
def history(config: Config, run: StepRun) -> str:
    import mlflow

    from steps.core import tracking_store
    from steps.registry.table import ARTIFACT, keep, show_history

    tracking_store.require_server(mlflow.get_tracking_uri())
    shown = show_history(config, as_json=config.format is HistoryFormat.json, limit=config.limit)
    if not run.run_id:
        return ""
    keep(run.run_id, shown)
    return f"runs:/{run.run_id}/{ARTIFACT}"


if __name__ == "__main__":
    history()
