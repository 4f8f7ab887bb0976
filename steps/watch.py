"""Wait for somebody to set the alias ``candidate``, judge that version, and promote or hold it by
policy.

Reads: the alias ``candidate`` of ``target`` (``models:/<name>``), or of every registered model;
``dry_run``; the nodes ``promotion`` and ``evaluate``.
Writes: what ``evaluate`` and ``promote`` write, and the verdict as the tags ``slm.candidate…`` of
the version; ``watch.json`` on its run.

    mlflow run . -e watch --env-manager local -P promotion.watch.once=true
"""

import logging
from functools import partial

from steps.config.root import Config
from steps.core.errors import Terminated
from steps.pipeline.step import StepRun, step

log = logging.getLogger(__name__)


@step(keys=("target", "dry_run", "evaluate=", "promotion"))
def watch(config: Config, run: StepRun) -> str:
    import mlflow
    from mlflow.exceptions import MlflowException

    from steps.core.redaction import redact
    from steps.pipeline.children import prepare_environment
    from steps.registry.candidate_decision import Verdict
    from steps.registry.candidate_evaluation import run_evaluation
    from steps.registry.client import RegistryClient
    from steps.registry.watcher import Watcher

    def keep(verdicts: list[Verdict]) -> None:
        try:
            mlflow.log_dict(
                {
                    "schema": "slm-promote/watch/1",
                    "verdicts": [verdict.to_json() for verdict in verdicts],
                },
                "watch.json",
            )
        except (MlflowException, OSError) as error:  # each version has its verdict as tags
            log.warning("watch.json could not be written (%s)", redact(str(error)))

    keep([])
    prepare_environment()
    registry = RegistryClient(config.promotion.retry_seconds)
    evaluate = partial(run_evaluation, registry, run.overrides)
    try:
        Watcher(config, registry, evaluate, overrides=run.overrides).run(keep)
    except Terminated:
        log.info("told to end; what a move had begun is finished by the next run")
    return f"runs:/{run.run_id}/watch.json"


if __name__ == "__main__":
    watch()
