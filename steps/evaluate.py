"""Judge both variants, and the incumbent champion if there is one, side by side.

Reads: ``transformers_uri`` and ``onnx_uri`` (``models:/…``), or any ``evaluate.candidates``;
``evaluate`` and ``promotion.gates``.
Writes: ``report.json`` and ``report.html`` on its run, with ``signing_key`` also
``report.json.sig``; metrics on the run and on every
logged model.

    mlflow run . -e evaluate --env-manager local -P model=smollm2_135m -P evaluate=smoke
"""

from collections.abc import Mapping
from pathlib import Path

from steps.config.root import Config
from steps.core.errors import ConfigError, StepError
from steps.evaluation import packs
from steps.evaluation.evaluate import evaluate_models
from steps.evaluation.publish import log_report
from steps.pipeline.step import StepRun, step
from steps.snapshots.store import Store


def _inputs(config: Config) -> tuple[str, ...]:
    return () if config.evaluate.candidates else ("transformers_uri", "onnx_uri")


def _candidates(config: Config) -> list[str]:
    return config.evaluate.candidates or [
        uri for uri in (config.transformers_uri, config.onnx_uri) if uri
    ]


def _incumbent(config: Config) -> str | None:
    """URI of what serves now, also where it is one of the candidates: the others are compared with
    it.
    """
    from steps.pipeline.artifact_lookup import exists

    uri = f"models:/{config.model.registered_name}@{config.promotion.alias}"
    return uri if config.evaluate.incumbent and exists(uri) else None


def _folder_digests(config: Config) -> dict[str, str]:
    """The user's own packs, texts and tasks by their bytes; what is shipped is part of the
    source.
    """
    from steps.core import digest

    settings = config.evaluate
    found: dict[str, str] = {}
    pack = packs.folder_of(settings.pack)
    if not pack.is_relative_to(packs.SHIPPED):
        found["evaluate.pack"] = digest.of_value(
            [digest.of_folder(pack), packs.load(settings.pack).digest]
        )
    texts = settings.fidelity.texts if settings.fidelity.enabled else None
    tasks = settings.lm_eval_path if settings.lm_eval_tasks else None
    for key, chosen in (("evaluate.fidelity.texts", texts), ("evaluate.lm_eval_path", tasks)):
        if chosen:
            try:
                found[key] = digest.of_folder(Path(chosen).expanduser())
            except FileNotFoundError as error:
                raise ConfigError(key, chosen, "a folder that holds files") from error
    return found


def _model_digests(config: Config) -> dict[str, str]:
    """The candidates that the config names, for an alias moves; and the incumbent, unless it is one
    of the candidates.

    Promoting a candidate asks for no new evaluation of it.
    """
    from steps.core.model_uri import model_id_of
    from steps.pipeline.artifact_lookup import digest_of

    found: dict[str, str] = {}
    for number, uri in enumerate(config.evaluate.candidates):
        try:
            found[f"evaluate.candidates.{number}"] = digest_of(f"models:/{model_id_of(uri)}")
        except StepError as error:
            raise ConfigError("evaluate.candidates", uri, "a logged model", str(error)) from error
    incumbent = _incumbent(config)
    if incumbent and model_id_of(incumbent) not in map(model_id_of, _candidates(config)):
        found["incumbent"] = digest_of(incumbent)
    return found


def _also_reads(config: Config) -> Mapping[str, str]:
    return {**_folder_digests(config), **_model_digests(config), **_signer(config)}


def _signer(config: Config) -> dict[str, str]:
    """Who signs: a report without that signature is another output. Also says at once that a file
    is not a key.
    """
    from steps.core import signatures

    return {"signing_key": signatures.signer_of(config.signing_key)} if config.signing_key else {}


def _sign(config: Config, report: Path) -> None:
    """Put the detached signature of the report beside it on the run."""
    import mlflow

    from steps.core import signatures

    if config.signing_key:
        mlflow.log_text(
            signatures.sign(report.read_bytes(), config.signing_key).decode("ascii") + "\n",
            f"{report.name}.sig",
        )


@step(
    reads=("model.registered_name", "evaluate", "promotion.gates"),
    inputs=_inputs,
    files=(
        "steps/evaluation",
        "steps/core/confine.py",
        "steps/core/peak_rss.py",
    ),  # packs, texts, the page's template, and what candidates' processes load by path
    packages=("mlflow", "transformers", "onnxruntime-genai", "scipy"),
    also_reads=_also_reads,
)
def evaluate(config: Config, run: StepRun) -> str:
    from tempfile import TemporaryDirectory

    with TemporaryDirectory(prefix="evaluate-") as folder:
        evaluate_models(
            _candidates(config),
            config,
            incumbent_uri=_incumbent(config),
            workdir=Path(folder),
            # an evaluation that was interrupted goes on from here
            cache=Store(config.store.path).root / "answers",
            log_to=log_report,
        )
        _sign(config, Path(folder, "report.json"))
    return f"runs:/{run.run_id}/report.json"


if __name__ == "__main__":
    evaluate()
