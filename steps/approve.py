"""Approve a version that has passed its gates, so that an alias may move to it: bound to its bytes
and its evidence.

Reads: ``target`` (``models:/<name>/<version>`` or ``models:/<name>@candidate``), ``alias``,
``reason``, ``signing_key``, ``dry_run``;
the node ``promotion``.
Writes: one version of the registered model ``<name>.approvals``, which approvers alone may edit.

    mlflow run . -e approve --env-manager local -P target=models:/mine/3 -P reason='read answers'
"""

from steps.config.root import Config
from steps.pipeline.step import StepRun, step


@step(
    keys=(
        *("target", "alias", "reason", "signing_key", "dry_run"),
        *("promotion.alias", "promotion.approvals", "promotion.approvers", "promotion.evidence"),
    )
)
def approve(config: Config, run: StepRun) -> str:  # noqa: ARG001  (a body is given its run)
    from steps.registry.approve import decide
    from steps.registry.statements import APPROVE

    said = decide(APPROVE, config)
    print(said.words)
    return said.uri


if __name__ == "__main__":
    approve()
