"""Evaluate both variants, and the incumbent champion if there is one, side by side.

Reads: ``transformers_uri`` and ``onnx_uri`` (``models:/…``), or any ``evaluate.candidates``;
``evaluate`` and ``promotion.gates``.
Writes: ``report.json`` and ``report.html`` on its run, with ``signing_key`` also
``report.json.sig``; metrics on the run and on every logged model.

    mlflow run . -e evaluate --env-manager local -P model=smollm2_135m -P evaluate=smoke
"""

from collections.abc import Mapping

from steps.config.root import Config
from steps.pipeline.step import StepRun, step


def _inputs(config: Config) -> tuple[str, ...]:
    return () if config.evaluate.candidates else ("transformers_uri", "onnx_uri")


def _show_anew(config: Config, report_uri: str) -> None:
    from steps.evaluation import rendering

    rendering.refresh(report_uri, config.promotion)


def _also_reads(config: Config) -> Mapping[str, str]:
    from steps.evaluation import inputs

    return inputs.digests(config)


@step(
    reads=("model.registered_name", "evaluate", "promotion.gates"),
    inputs=_inputs,
    files=(
        "steps/evaluation",
        "steps/core/confine.py",
        "steps/core/peak_rss.py",
    ),  # packs, texts, and what candidates' processes load by path
    presentation=(
        "steps/evaluation/presentation",
        "steps/evaluation/ranking.py",
        "steps/evaluation/rendering.py",
    ),
    packages=("mlflow", "transformers", "onnxruntime-genai", "scipy"),
    also_reads=_also_reads,
    keys=("transformers_uri", "onnx_uri", "signing_key", "evaluate", "promotion.gates"),
    refresh=_show_anew,
)
def evaluate(config: Config, run: StepRun) -> str:
    from pathlib import Path
    from tempfile import TemporaryDirectory

    import mlflow

    from steps.core import tags
    from steps.evaluation import inputs, publish, rendering
    from steps.evaluation.evaluate import evaluate_models
    from steps.evaluation.presentation import closing_table
    from steps.snapshots.store import Store

    with TemporaryDirectory(prefix="evaluate-") as folder:
        report = evaluate_models(
            inputs.candidates(config),
            config,
            incumbent_uri=inputs.incumbent(config),
            workdir=Path(folder),
            # an evaluation that was interrupted goes on from here
            cache=Store(config.store.path).root / "answers",
            log_to=publish.log_report,
        )
        if config.signing_key:
            publish.log_signature(Path(folder, "report.json"), config.signing_key)
    mlflow.set_tag(tags.PRESENTATION, rendering.mark(config.promotion))
    report_uri = f"runs:/{run.run_id}/report.json"
    if publish.is_part_of_a_chain():
        closing_table.advise(report, config.promotion)
    else:
        closing_table.show(report, config.promotion)
        print(f"\nreport: {publish.page(report_uri)}", flush=True)
    return report_uri


if __name__ == "__main__":
    evaluate()
