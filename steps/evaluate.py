"""Judge both variants, and the incumbent champion if there is one, side by side.

Reads: ``transformers_uri`` and ``onnx_uri`` (``models:/…``), or any ``evaluate.candidates``; ``evaluate`` and ``promotion.gates``.
Writes: ``report.json`` and ``report.html`` on its run; metrics on the run and on every logged model.

    mlflow run . -e evaluate --env-manager local -P model=smollm2_135m -P evaluate=smoke
"""

from collections.abc import Mapping

from steps.config.root import Config
from steps.pipeline.step import StepRun, step
from steps.scoring.judge import judge, log_report
from steps.snapshots.store import Store


def _inputs(config: Config) -> tuple[str, ...]:
    return () if config.evaluate.candidates else ("transformers_uri", "onnx_uri")


def _candidates(config: Config) -> list[str]:
    return config.evaluate.candidates or [uri for uri in (config.transformers_uri, config.onnx_uri) if uri]


def _incumbent(config: Config) -> str | None:
    """URI of what serves now, also where it is one of the candidates: the others are compared with it."""
    from steps.pipeline.handoff import exists

    uri = f"models:/{config.model.registered_name}@{config.promotion.alias}"
    return uri if config.evaluate.incumbent and exists(uri) else None


def _incumbent_digest(config: Config) -> Mapping[str, str]:
    """The incumbent as an input, unless it is a candidate and so one already: promoting one of them asks for no new evaluation."""
    from steps.pipeline.handoff import digest_of, model_id_of

    uri = _incumbent(config)
    if uri is None or model_id_of(uri) in [model_id_of(candidate) for candidate in _candidates(config)]:
        return {}
    return {"incumbent": digest_of(uri)}


@step(
    reads=("model.registered_name", "evaluate", "promotion.gates"),
    inputs=_inputs,
    files=("steps/scoring",),  # packs, texts, the page's template, and what the candidates' processes load by path
    packages=("mlflow", "transformers", "onnxruntime-genai", "scipy"),
    also_reads=_incumbent_digest,
)
def evaluate(config: Config, run: StepRun) -> str:
    from pathlib import Path
    from tempfile import TemporaryDirectory

    with TemporaryDirectory(prefix="evaluate-") as folder:
        report = judge(
            _candidates(config),
            config,
            incumbent_uri=_incumbent(config),
            workdir=Path(folder),
            cache=Store(config.store.path).root / "answers",  # an evaluation that was interrupted goes on from here
        )
        log_report(report, Path(folder))
    return f"runs:/{run.run_id}/report.json"


if __name__ == "__main__":
    evaluate()
