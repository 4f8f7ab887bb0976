"""Evaluate candidates side by side and write the report.

``evaluate_models`` loads each candidate in a process of its own, takes the quality pass, the
timings, the chat contract and the fidelity to the checkpoint, and asks the policy for a verdict.
"""

import logging
import math
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from steps.config import isolation
from steps.config.gates import GatesConfig
from steps.config.root import Config
from steps.core import processes
from steps.evaluation import (
    candidate,
    conversions,
    html_report,
    lm_eval_tasks,
    machine,
    packs,
    publish,
    speed,
    statistics,
    verdict,
)
from steps.evaluation.candidate import Candidate
from steps.evaluation.description import Description, describe
from steps.evaluation.packs import Pack
from steps.evaluation.progress import Display
from steps.evaluation.report import HOLD, CandidateReport, Report, Verdict
from steps.evaluation.worker_process import CandidateProcess, Limits

log = logging.getLogger(__name__)
Publish = Callable[[Report, Path], None]
# share of items that two variants of one small model answer differently in score
TYPICAL_DISCORDANCE = 0.2
LOAD_WEIGHT, CONFORMANCE_WEIGHT = 10.0, 25.0  # rough seconds, for the remaining time only


def evaluate_models(
    candidate_uris: Sequence[str],
    config: Config,
    *,
    incumbent_uri: str | None,
    workdir: Path,
    cache: Path | None = None,
    log_to: Publish | None = None,
) -> Report:
    """Judge candidates, write ``report.json``, ``report.html`` and the pictures into ``workdir``,
    and log them.

    Nothing that took long is lost at the end: the answers are forgotten only when the report is
    logged, and traces, which no verdict needs, are written last.

    Args:
        candidate_uris: any model URIs.
        config: ``evaluate`` and ``promotion`` are read, and the registered name.
        incumbent_uri: what serves now; judged beside the candidates unless it is one of them.
        workdir: an existing folder.
        cache: folder for the answers of an interrupted evaluation; None is ``workdir/answers``.
        log_to: given the report and ``workdir``; when it fails, the files are kept elsewhere and
            the error says where.

    Raises:
        ConfigError: ``evaluate.isolation`` is required and cannot be had here; nothing has been
            run.
        PackError: the pack is broken; nothing has been run.
        mlflow.exceptions.MlflowException: a URI names no model; nothing has been run.
    """
    settings = config.evaluate
    isolation.heed("evaluate.isolation", settings.isolation, processes.missing())
    pack = packs.load(settings.pack).take(settings.max_items)
    lm_eval_tasks.check(settings.lm_eval_tasks, settings.lm_eval_path)
    subjects = _subjects(candidate_uris, incumbent_uri, config)
    warnings = _memory_warnings(subjects)
    weight = len(subjects) * (
        LOAD_WEIGHT
        + sum((item.max_tokens or settings.max_new_tokens) / 16 for item in pack.items)
        + (CONFORMANCE_WEIGHT if settings.conformance else 0)
        + (candidate.TIMING_WEIGHT * speed.steps(settings.speed) if settings.speed.enabled else 0)
    )
    if settings.fidelity.enabled:
        weight += conversions.TOKEN_WEIGHT * settings.fidelity.tokens * conversions.count(subjects)
    with Display(weight) as display, ExitStack() as stack:
        for subject in subjects:
            stack.callback(subject.process.close)
            display.say(f"load {subject.description.name}")
            subject.attempt("load", partial(candidate.load, subject, workdir))
            display.advance(LOAD_WEIGHT)
        for subject in subjects:
            display.say(f"quality of {subject.description.name} on {len(pack.items)} items")
            subject.attempt(
                "quality",
                partial(
                    candidate.answer_pack,
                    subject,
                    pack,
                    config,
                    cache or workdir / "answers",
                    display,
                ),
            )
        for subject in subjects if settings.lm_eval_tasks else []:
            display.say(f"lm-eval of {subject.description.name}")
            subject.attempt("lm-eval", partial(candidate.run_lm_eval, subject, config))
        if settings.speed.enabled:
            display.say("speed, interleaved")
            candidate.time_all(subjects, config, display)
        # before the contract, whose over-long prompt is not an everyday load
        for subject in subjects:
            subject.attempt("memory", partial(candidate.weigh, subject))
        for subject in subjects if settings.fidelity.enabled else []:
            if subject.description.variant == verdict.CONVERTED:
                subject.attempt("prompts", partial(candidate.count_prompts, subject))
        for subject in subjects if settings.conformance else []:
            display.say(f"chat contract of {subject.description.name}")
            subject.attempt("conformance", partial(candidate.conform, subject))
            display.advance(CONFORMANCE_WEIGHT)
        for subject in subjects:
            subject.process.close()
        if settings.fidelity.enabled:
            display.say(f"fidelity on {settings.fidelity.tokens} tokens")
            conversions.compare_all(subjects, config, workdir, display)
    report = _report(subjects, pack, config, warnings)
    write(report, workdir)
    if log_to is not None:
        try:
            log_to(report, workdir)
        except Exception as error:
            kept = publish.keep(workdir)
            error.add_note(
                "The evaluation is complete, but its report could not be logged: it is kept in"
                f" {kept}"
            )
            log.error(
                "the report could not be logged and is kept in %s; its answers are kept for the"
                " next attempt",
                kept,
            )
            raise
    for subject in subjects:
        if subject.store is not None:
            subject.store.clear()
    if settings.traces:
        try:
            candidate.trace_all(subjects, pack)
        except Exception as error:  # noqa: BLE001 - whatever a tracking server answers: the report is logged by now
            log.warning("the traces are not complete: %s: %s", type(error).__name__, error)
    return report


def _subjects(
    candidate_uris: Sequence[str], incumbent_uri: str | None, config: Config
) -> list[Candidate]:
    settings = config.evaluate
    limits = Limits(
        settings.candidate_timeout, settings.request_timeout, settings.memory_limit_bytes
    )
    described: list[Description] = []
    for uri in dict.fromkeys(candidate_uris):
        each = describe(uri)
        # an alias and a version may name one model
        if not each.model_id or each.model_id not in [other.model_id for other in described]:
            described.append(each)
    if incumbent_uri is not None:
        incumbent = describe(incumbent_uri, "incumbent")
        same = [each for each in described if each.model_id and each.model_id == incumbent.model_id]
        described = [
            replace(each, role="incumbent", version=incumbent.version) if each in same else each
            for each in described
        ]
        if not same:
            described.append(incumbent)
    names = [each.name for each in described]
    return [
        Candidate(
            each,
            CandidateProcess(
                each.name if names.count(each.name) == 1 else f"{each.name}-{index}", limits
            ),
        )
        for index, each in enumerate(described)
    ]


def _memory_warnings(subjects: Sequence[Candidate]) -> tuple[str, ...]:
    """All candidates are in memory at once while they are timed in turn: say so before it hurts."""
    import psutil

    needed = sum(subject.description.size_bytes or 0 for subject in subjects)
    available = psutil.virtual_memory().available
    if needed <= available:
        return ()
    text = (
        f"the candidates' files hold {needed / 1e9:.1f} GB, and {available / 1e9:.1f} GB of memory"
        " were available: judge fewer at once"
    )
    log.warning("%s (evaluate.candidates, evaluate.incumbent=false)", text)
    return (text,)


def _report(
    subjects: Sequence[Candidate], pack: Pack, config: Config, warnings: tuple[str, ...]
) -> Report:
    gates: GatesConfig = config.promotion.gates
    candidates = [_candidate(subject) for subject in subjects]
    incumbent = next((each for each in candidates if each.role == "incumbent"), None)
    seed = config.evaluate.seed
    judged = tuple(
        replace(each, verdict=verdict.decide(each, incumbent, gates, seed)) for each in candidates
    )
    serving = next(
        (subject.description for subject in subjects if subject.description.role == "incumbent"),
        None,
    )
    first = next(
        (subject.description for subject in subjects if subject.description.snapshot_digest), None
    )
    return Report(
        registered_name=config.model.registered_name,
        snapshot=(
            None
            if first is None
            else {
                "digest": first.snapshot_digest,
                "repo": first.source,
                "revision": first.snapshot_revision,
                "licence": first.licence,
            }
        ),
        incumbent=(
            None
            if serving is None
            else {"uri": serving.uri, "model_id": serving.model_id, "version": serving.version}
        ),
        seed=seed,
        machine=machine.describe(),
        pack={
            "name": pack.name,
            "version": pack.version,
            "digest": pack.digest,
            "items": len(pack.items),
            "licence": pack.licence,
            "contamination": pack.contamination,
            "questions": {
                item.id: [dict(message) for message in item.messages] for item in pack.items
            },
        },
        policy={"gates": asdict(gates)},
        candidates=judged,
        isolation={"wanted": config.evaluate.isolation.value, "missing": list(processes.missing())},
        notes=(*warnings, *_isolation_notes(), *_notes(pack, gates), *_resumed(subjects, pack)),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def _notes(pack: Pack, gates: GatesConfig) -> tuple[str, ...]:
    """What a reader must know before trusting the verdicts."""
    margin, confidence = gates.relative.quality_margin, gates.relative.confidence
    needed = statistics.items_needed(TYPICAL_DISCORDANCE, margin, confidence)
    if len(pack.items) >= needed:
        return ()
    said = (
        f"{len(pack.items)} items are too few to stake a promotion on: about {needed} are needed to"
        " find two equal models"
    )
    return (f"{said} within {margin:g} of each other, if they differ on a fifth of the items.",)


def _isolation_notes() -> tuple[str, ...]:
    missing = processes.missing()
    return (
        (
            (
                "the candidates were loaded with less isolation than there could be"
                f" ({'; '.join(missing)})"
            ),
        )
        if missing
        else ()
    )


def _resumed(subjects: Sequence[Candidate], pack: Pack) -> tuple[str, ...]:
    total = len(pack.items)
    return tuple(
        f"{subject.resumed} of {total} answers of {subject.description.name} are from an earlier"
        " process, and so are their latencies"
        for subject in subjects
        if subject.resumed
    )


def _candidate(subject: Candidate) -> CandidateReport:
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


def write(report: Report, workdir: Path) -> None:
    """Write the report's files into ``workdir``."""
    report.write(workdir / "report.json")
    html_report.write(report, workdir)
