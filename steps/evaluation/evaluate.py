"""Evaluate candidates side by side and write the report.

``evaluate_models`` loads each candidate in a process of its own, takes the quality pass, the
timings, the chat contract and the fidelity to the checkpoint, and asks the policy for a verdict.
"""

import logging
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import psutil

from steps.config import isolation
from steps.config.root import Config
from steps.core import processes
from steps.evaluation import (
    candidate,
    conversions,
    lm_eval_tasks,
    packs,
    publish,
    speed,
    verdict,
)
from steps.evaluation.candidate import candidates_of
from steps.evaluation.presentation import html_report
from steps.evaluation.progress import Display
from steps.evaluation.report import Report
from steps.evaluation.report_assembly import assemble

log = logging.getLogger(__name__)
Publish = Callable[[Report, Path], None]
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
    subjects = candidates_of(candidate_uris, incumbent_uri, config)
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
    report = assemble(subjects, pack, config, warnings)
    report.write(workdir / "report.json")
    html_report.write(report, workdir)
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


def _memory_warnings(subjects: Sequence[candidate.Candidate]) -> tuple[str, ...]:
    """All candidates are in memory at once while they are timed in turn: say so before it hurts."""
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
