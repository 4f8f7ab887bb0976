"""Compare ONNX builds of one checkpoint: each logged by a nested run, all judged side by side, one
table and a Pareto picture.

Reads: ``snapshot_uri`` and ``transformers_uri``; the nodes ``evaluate`` (with ``evaluate.builds``),
``model``, ``onnx`` and ``generation``.
Writes: one nested run a build, and on its own run ``sweep.md``, ``sweep.json``, ``sweep.png``,
``report.json`` and ``report.html``.

    mlflow run . -e sweep --env-manager local -P evaluate=sweep -P 'evaluate.builds=[int4_cpu]'
"""

from steps.config.root import Config
from steps.pipeline.step import StepRun, step


@step(
    reads=("evaluate", "model.registered_name"),
    keys=("snapshot_uri", "transformers_uri", "onnx=", "evaluate"),
    inputs=("snapshot_uri", "transformers_uri"),
    packages=("mlflow", "onnxruntime-genai"),
)
def sweep(config: Config, run: StepRun) -> str:
    from pathlib import Path
    from tempfile import TemporaryDirectory

    import mlflow

    from steps.core.errors import ConfigError
    from steps.evaluation import publish
    from steps.evaluation import sweep as table
    from steps.evaluation.evaluate import evaluate_models
    from steps.pipeline.sweep_builds import log_builds
    from steps.snapshots.store import Store

    if not config.evaluate.builds:
        raise ConfigError(
            "evaluate.builds", [], "choices of the group onnx/ to compare", "pass evaluate=sweep"
        )
    uris, failed = log_builds(config, run)
    with TemporaryDirectory(prefix="sweep-") as folder:
        workdir = Path(folder)
        report = evaluate_models(
            [run.inputs["transformers_uri"], *uris.values()],
            config,
            incumbent_uri=None,
            workdir=workdir,
            # a sweep that was interrupted goes on from here
            cache=Store(config.store.path).root / "answers",
            log_to=publish.log_report,
        )
        names = {uri: name for name, uri in uris.items()} | {
            run.inputs["transformers_uri"]: "checkpoint (transformers)"
        }
        builds = table.rows(report, names, failed)
        table.write(builds, workdir)
        for file in sorted(workdir.glob("sweep.*")):
            mlflow.log_artifact(str(file))
    table.show(builds)
    page = publish.page(f"runs:/{run.run_id}/report.json")
    print(f"\nreport: {page}", flush=True)
    return f"runs:/{run.run_id}/sweep.json"


if __name__ == "__main__":
    sweep()
