"""Judge candidates side by side and write the report.

``judge`` loads each candidate in a process of its own, takes the quality pass, the timings, the chat contract and the fidelity to
the checkpoint, and asks the policy for a verdict; ``log_report`` puts the result on the active run and on each logged model.
"""

import math
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from steps.config.gates import GatesConfig
from steps.config.root import Config
from steps.scoring import lm_eval_tasks, machine, packs, page, parts, speed, statistics, verdict
from steps.scoring.candidates import CandidateProcess, Limits
from steps.scoring.description import describe
from steps.scoring.packs import Pack
from steps.scoring.parts import Subject
from steps.scoring.progress import Display
from steps.scoring.report import (
    HOLD,
    CandidateReport,
    Report,
    Verdict,
)

TYPICAL_DISCORDANCE = 0.2  # share of items that two variants of one small model answer differently in score
LOAD_WEIGHT, CONFORMANCE_WEIGHT = 10.0, 25.0  # rough seconds, for the remaining time only


def judge(candidate_uris: Sequence[str], config: Config, *, incumbent_uri: str | None, workdir: Path, cache: Path | None = None) -> Report:
    """Judge candidates and write ``report.json``, ``report.html`` and the answers' table into ``workdir``.

    Args:
        candidate_uris: any model URIs.
        config: ``evaluate`` and ``promotion`` are read, and the registered name.
        incumbent_uri: what serves now; judged beside the candidates unless it is one of them.
        workdir: an existing folder.
        cache: folder for the answers of an interrupted evaluation; None is ``workdir/answers``.

    Raises:
        PackError: the pack is broken; nothing has been run.
        mlflow.exceptions.MlflowException: a URI names no model; nothing has been run.
    """
    settings = config.evaluate
    pack = packs.load(settings.pack).take(settings.max_items)
    lm_eval_tasks.check(settings.lm_eval_tasks, settings.lm_eval_path)
    subjects = _subjects(candidate_uris, incumbent_uri, config, workdir)
    weight = len(subjects) * (
        LOAD_WEIGHT
        + sum((item.max_tokens or settings.max_new_tokens) / 16 for item in pack.items)
        + (CONFORMANCE_WEIGHT if settings.conformance else 0)
        + (parts.TIMING_WEIGHT * speed.steps(settings.speed) if settings.speed.enabled else 0)
        + (parts.TOKEN_WEIGHT * settings.fidelity.tokens if settings.fidelity.enabled else 0)
    )
    with Display(weight) as display, ExitStack() as stack:
        for subject in subjects:
            stack.enter_context(subject.process)
            display.say(f"load {subject.description.name}")
            subject.attempt("load", partial(parts.load, subject))
            display.advance(LOAD_WEIGHT)
        for subject in subjects:
            display.say(f"quality of {subject.description.name} on {len(pack.items)} items")
            subject.attempt("quality", partial(parts.answer_pack, subject, pack, config, cache or workdir / "answers", display))
        for subject in subjects if settings.lm_eval_tasks else []:
            display.say(f"lm-eval of {subject.description.name}")
            subject.attempt("lm-eval", partial(parts.run_lm_eval, subject, config))
        if settings.speed.enabled:
            display.say("speed, interleaved")
            parts.time_all(subjects, config, display)
        for subject in subjects:  # before the contract, whose over-long prompt is nobody's everyday load
            subject.attempt("memory", partial(parts.weigh, subject))
        for subject in subjects if settings.conformance else []:
            display.say(f"chat contract of {subject.description.name}")
            subject.attempt("conformance", partial(parts.conform, subject))
            display.advance(CONFORMANCE_WEIGHT)
        for subject in subjects:
            subject.process.close()
        if settings.fidelity.enabled:
            display.say(f"fidelity on {settings.fidelity.tokens} tokens")
            parts.compare_all(subjects, config, workdir, display)
        if settings.traces:
            display.say("traces")
            parts.trace_all(subjects, pack)
    report = _report(subjects, pack, config)
    write(report, workdir)
    for subject in subjects:
        if subject.store is not None and subject.failure is None:
            subject.store.clear()
    return report


def _subjects(candidate_uris: Sequence[str], incumbent_uri: str | None, config: Config, workdir: Path) -> list[Subject]:
    settings = config.evaluate
    limits = Limits(settings.candidate_timeout, settings.request_timeout, settings.memory_limit_bytes)
    described = [describe(uri) for uri in dict.fromkeys(candidate_uris)]
    if incumbent_uri is not None:
        incumbent = describe(incumbent_uri, "incumbent")
        same = [each for each in described if each.model_id and each.model_id == incumbent.model_id]
        described = [replace(each, role="incumbent") if each in same else each for each in described]
        if not same:
            described.append(incumbent)
    names = [each.name for each in described]
    return [
        Subject(each, CandidateProcess(each.name if names.count(each.name) == 1 else f"{each.name}-{index}", workdir, limits))
        for index, each in enumerate(described)
    ]


def _report(subjects: Sequence[Subject], pack: Pack, config: Config) -> Report:
    gates: GatesConfig = config.promotion.gates
    candidates = [_candidate(subject) for subject in subjects]
    incumbent = next((each for each in candidates if each.role == "incumbent"), None)
    seed = config.evaluate.seed
    judged = tuple(replace(each, verdict=verdict.decide(each, incumbent, gates, seed)) for each in candidates)
    first = next((subject.description for subject in subjects if subject.description.snapshot_digest), None)
    return Report(
        registered_name=config.model.registered_name,
        snapshot=None
        if first is None
        else {
            "digest": first.snapshot_digest,
            "repo": first.source,
            "revision": first.snapshot_revision,
            "licence": first.licence,
        },
        incumbent=None if incumbent is None else {"uri": incumbent.uri, "model_id": incumbent.model_id, "version": _version(incumbent.uri)},
        seed=seed,
        machine=machine.describe(),
        pack={
            "name": pack.name,
            "version": pack.version,
            "digest": pack.digest,
            "items": len(pack.items),
            "licence": pack.licence,
            "contamination": pack.contamination,
            "questions": {item.id: [dict(message) for message in item.messages] for item in pack.items},
        },
        policy={"gates": asdict(gates)},
        candidates=judged,
        notes=_notes(pack, gates),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def _notes(pack: Pack, gates: GatesConfig) -> tuple[str, ...]:
    """What a reader must know before trusting the verdicts."""
    margin, confidence = gates.relative.quality_margin, gates.relative.confidence
    needed = statistics.items_needed(TYPICAL_DISCORDANCE, margin, confidence)
    if len(pack.items) >= needed:
        return ()
    said = f"{len(pack.items)} items are too few to stake a promotion on: about {needed} are needed to find two equal models"
    return (f"{said} within {margin:g} of each other, if they differ on a fifth of the items.",)


def _candidate(subject: Subject) -> CandidateReport:
    described = subject.description
    for name in [name for name, value in subject.metrics.items() if not math.isfinite(value)]:
        subject.notes.append(f"{name} is {subject.metrics.pop(name)} and is left out")
    return CandidateReport(
        uri=described.uri,
        model_id=described.model_id,
        variant=described.variant,
        digest=described.digest,
        role=described.role,
        status="failed" if subject.failure else "evaluated",
        failure=subject.failure,
        metrics=dict(sorted(subject.metrics.items())),
        quality=subject.quality,
        conformance=subject.conformance,
        verdict=Verdict(HOLD),
        licence=described.licence,
        series=subject.series,
        notes=tuple(subject.notes),
    )


def _version(uri: str) -> str | None:
    """Registry version that a ``models:/name/3`` or ``models:/name@alias`` URI names."""
    import mlflow

    name, _, version = uri.removeprefix("models:/").partition("/")
    if version:
        return version
    name, _, alias = name.partition("@")
    return str(mlflow.MlflowClient().get_model_version_by_alias(name, alias).version) if alias else None


def write(report: Report, workdir: Path) -> None:
    """Write the report's files into ``workdir``."""
    report.write(workdir / "report.json")
    page.write(report, workdir)


def table(report: Report) -> dict[str, list[Any]]:
    """Answers of all candidates, one row an answer: what the run's table artifact shows."""
    columns: dict[str, list[Any]] = {
        name: []
        for name in ("item", "skill", "variant", "model_id", "answer", "score", "finish_reason", "tokens", "latency_s", "tokens_per_second")
    }
    for candidate in report.candidates:
        for item in candidate.quality.items:
            rate = item.completion_tokens / item.latency_s if item.latency_s else 0.0
            row = (
                item.id,
                item.tags[0],
                candidate.variant,
                candidate.model_id,
                item.answer,
                item.score,
                item.finish_reason,
                item.completion_tokens,
                item.latency_s,
                rate,
            )
            for name, value in zip(columns, row, strict=True):
                columns[name].append(value)
    return columns


def log_report(report: Report, workdir: Path) -> None:
    """Log the report's files to the active run, and metrics to the run and to each logged model.

    A logged model's metrics carry their plain names; on the run each variant's names follow ``<variant>/``.
    """
    import mlflow

    run = mlflow.active_run()
    if run is None:
        raise RuntimeError("no active run: log_report is called inside a step's run")
    for name in ("report.json", "report.html", "pictures"):
        mlflow.log_artifact(str(workdir / name))
    mlflow.log_table(table(report), "answers.json")
    variants = [candidate.variant for candidate in report.candidates]
    for candidate in report.candidates:
        prefix = candidate.variant if variants.count(candidate.variant) == 1 else f"{candidate.variant}-{candidate.model_id[-6:]}"
        mlflow.log_metrics(candidate.metrics, model_id=candidate.model_id or None)
        mlflow.log_metrics({f"{prefix}/{name}": value for name, value in candidate.metrics.items()})
