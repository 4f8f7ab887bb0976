"""What an evaluation leaves on the run and on each logged model."""

import shutil
import tempfile
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import mlflow
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID

from steps.core import signatures
from steps.core.redaction import redact_credentials
from steps.evaluation import metrics
from steps.evaluation.report import CandidateReport, ItemResult, Report

PAGE = "report.html"
# metrics of a logged model
SHOWN = frozenset(
    {*metrics.METRICS, *metrics.INTERVAL, metrics.QUALITY_ITEMS, metrics.PROMPT_AGREEMENT}
)
# on the run, one group a candidate: what runs are compared by
COMPARED = frozenset(
    {
        *(metrics.QUALITY_SCORE, *metrics.INTERVAL, metrics.KL_MEAN, metrics.DECODE),
        *(metrics.TTFT_P50, metrics.PEAK_RSS, metrics.SIZE),
    }
)

# of the run's table of answers; its times are of an answer among those asked for at once
COLUMNS: dict[str, Callable[[CandidateReport, ItemResult], Any]] = {
    "item": lambda _, item: item.id,
    "skill": lambda _, item: item.tags[0],
    "variant": lambda candidate, _: candidate.variant,
    "model_id": lambda candidate, _: candidate.model_id,
    "answer": lambda _, item: item.answer,
    "score": lambda _, item: item.score,
    "finish_reason": lambda _, item: item.finish_reason,
    "tokens": lambda _, item: item.completion_tokens,
    "latency_s": lambda _, item: item.latency_s,
    "tokens_per_second": lambda _, item: (
        item.completion_tokens / item.latency_s if item.latency_s else 0.0
    ),
}


def table(report: Report) -> dict[str, list[Any]]:
    """Answers of all candidates by column, one row an answer."""
    rows = [
        (candidate, item) for candidate in report.candidates for item in candidate.quality.items
    ]
    return {name: [value(*row) for row in rows] for name, value in COLUMNS.items()}


def shown(measured: Mapping[str, float], names: Collection[str] = SHOWN) -> dict[str, float]:
    """The figures that people look for in MLflow's UI; `report.json` has all of them."""
    return {
        name: value
        for name, value in measured.items()
        if name in names or name.startswith(metrics.LM_EVAL)
    }


def prefixes(candidates: Sequence[CandidateReport]) -> list[str]:
    """What the metrics' names on the run begin with: the same from one evaluation to the next,
    whoever serves.
    """
    plain = [
        "incumbent" if candidate.role == "incumbent" else candidate.variant
        for candidate in candidates
    ]
    return [
        # as they were given: onnx-1, onnx-2
        name if plain.count(name) == 1 else f"{name}-{plain[: index + 1].count(name)}"
        for index, name in enumerate(plain)
    ]


def log_report(report: Report, workdir: Path) -> None:
    """Log the report's files to the active run, and metrics to the run and to each logged model.

    A logged model's metrics carry their plain names (MLflow shows them on the run as well, of the
    last model); the few that runs are compared by follow ``incumbent/`` or ``<variant>/``.
    """
    run = mlflow.active_run()
    if run is None:
        raise RuntimeError("no active run: log_report is called inside a step's run")
    for name in ("report.json", "report.html", "pictures"):
        mlflow.log_artifact(str(workdir / name))
    mlflow.log_table(table(report), "answers.json")
    for candidate, prefix in zip(report.candidates, prefixes(report.candidates), strict=True):
        mlflow.log_metrics(shown(candidate.metrics), model_id=candidate.model_id or None)
        compared = shown(candidate.metrics, COMPARED)
        mlflow.log_metrics({f"{prefix}/{name}": value for name, value in compared.items()})


def log_signature(report: Path, signing_key: str) -> None:
    """Log the detached signature of a report's bytes beside the report."""
    signature = signatures.sign(report.read_bytes(), signing_key).decode("ascii")
    mlflow.log_text(signature + "\n", f"{report.name}.sig")


def keep(workdir: Path) -> Path:
    """Copy the files of an evaluation to where no later step deletes them."""
    kept = Path(tempfile.mkdtemp(prefix="slm-evaluation-"))
    shutil.copytree(workdir, kept, dirs_exist_ok=True)
    return kept


def page(report_uri: str) -> str:
    """Where ``report.html`` beside a report can be opened: a path on this machine, else its page in
    MLflow's UI.

    Args:
        report_uri: ``runs:/<run>/report.json``.
    """
    run_id = report_uri.removeprefix("runs:/").partition("/")[0]
    tracking = mlflow.get_tracking_uri()
    info = mlflow.MlflowClient().get_run(run_id).info
    place = urlsplit(str(info.artifact_uri))
    if place.scheme in ("", "file") and (path := Path(unquote(place.path), PAGE)).is_file():
        return str(path)
    if tracking.startswith("http"):
        return f"{redact_credentials(tracking).rstrip('/')}/{fragment(info.experiment_id, run_id)}"
    return f"mlflow artifacts download --run-id {run_id} --artifact-path {PAGE}"


def fragment(experiment_id: str, run_id: str) -> str:
    """The page of a run's ``report.html``, as MLflow's UI addresses it."""
    return f"#/experiments/{experiment_id}/runs/{run_id}/artifacts/{PAGE}"


def is_part_of_a_chain() -> bool:
    """Whether another run started this one, and says at its own end what there is to look at."""
    run = mlflow.active_run()
    return run is not None and MLFLOW_PARENT_RUN_ID in run.data.tags
