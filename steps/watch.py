"""Wait for somebody to set the alias ``candidate``, judge that version, and promote or hold it by policy.

Reads: the alias ``candidate`` of ``target`` (``models:/<name>``), or of every registered model; ``dry_run``; the nodes
``promotion`` and ``evaluate``.
Writes: what ``evaluate`` and ``promote`` write, and the verdict as the tags ``slm.candidate…`` of the version; ``watch.json`` on its run.

    mlflow run . -e watch --env-manager local -P promotion.watch.once=true
"""

from steps.config.root import Config
from steps.pipeline.step import StepRun, step


@step()
def watch(config: Config, run: StepRun) -> str:
    import mlflow

    from steps.registry.loop import loop

    verdicts = loop(config)
    mlflow.log_dict({"schema": "slm-promote/watch/1", "verdicts": [verdict.to_json() for verdict in verdicts]}, "watch.json")
    return f"runs:/{run.run_id}/watch.json"


if __name__ == "__main__":
    watch()
