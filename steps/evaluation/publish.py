"""What an evaluation leaves on the run and on each logged model."""

import shutil
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import mlflow

from steps.core import signatures
from steps.evaluation.report import CandidateReport, ItemResult, Report

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

    A logged model's metrics carry their plain names; on the run they follow ``incumbent/`` or
    ``<variant>/``.
    """
    run = mlflow.active_run()
    if run is None:
        raise RuntimeError("no active run: log_report is called inside a step's run")
    for name in ("report.json", "report.html", "pictures"):
        mlflow.log_artifact(str(workdir / name))
    mlflow.log_table(table(report), "answers.json")
    for candidate, prefix in zip(report.candidates, prefixes(report.candidates), strict=True):
        mlflow.log_metrics(candidate.metrics, model_id=candidate.model_id or None)
        mlflow.log_metrics({f"{prefix}/{name}": value for name, value in candidate.metrics.items()})


def log_signature(report: Path, signing_key: str) -> None:
    """Log the detached signature of a report's bytes beside the report."""
    signature = signatures.sign(report.read_bytes(), signing_key).decode("ascii")
    mlflow.log_text(signature + "\n", f"{report.name}.sig")


def keep(workdir: Path) -> Path:
    """Copy the files of an evaluation to where no later step deletes them."""
    kept = Path(tempfile.mkdtemp(prefix="slm-evaluation-"))
    shutil.copytree(workdir, kept, dirs_exist_ok=True)
    return kept
