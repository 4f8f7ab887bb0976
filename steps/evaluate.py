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
    presentation=("steps/evaluation/presentation",),
    packages=("mlflow", "transformers", "onnxruntime-genai", "scipy"),
    also_reads=_also_reads,
    keys=("transformers_uri", "onnx_uri", "signing_key", "evaluate", "promotion.gates"),
)
def evaluate(config: Config, run: StepRun) -> str:
    from pathlib import Path
    from tempfile import TemporaryDirectory

    from steps.evaluation import inputs, publish
    from steps.evaluation.evaluate import evaluate_models
    from steps.snapshots.store import Store

    with TemporaryDirectory(prefix="evaluate-") as folder:
        evaluate_models(
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
    return f"runs:/{run.run_id}/report.json"


if __name__ == "__main__":
    evaluate()
