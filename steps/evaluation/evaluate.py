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
from steps.evaluation import conversions, lm_eval_tasks, packs, publish, speed, verdict
from steps.evaluation.candidate import (
    TIMING_WEIGHT,
    Candidate,
    answer_pack,
    candidates_of,
    conform,
    count_prompts,
    load,
    run_lm_eval,
    time_all,
    trace_all,
    weigh,
)
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
    candidates = candidates_of(candidate_uris, incumbent_uri, config)
    warnings = _memory_warnings(candidates)
    weight = len(candidates) * (
        LOAD_WEIGHT
        + sum((item.max_tokens or settings.max_new_tokens) / 16 for item in pack.items)
        + (CONFORMANCE_WEIGHT if settings.conformance else 0)
        + (TIMING_WEIGHT * speed.steps(settings.speed) if settings.speed.enabled else 0)
    )
    if settings.fidelity.enabled:
        weight += (
            conversions.TOKEN_WEIGHT * settings.fidelity.tokens * conversions.count(candidates)
        )
    other_load = None
    with Display(weight) as display, ExitStack() as stack:
        for candidate in candidates:
            stack.callback(candidate.process.close)
            display.say(f"load {candidate.description.name}")
            candidate.attempt("load", partial(load, candidate, workdir))
            display.advance(LOAD_WEIGHT)
        for candidate in candidates:
            display.say(f"quality of {candidate.description.name} on {len(pack.items)} items")
            candidate.attempt(
                "quality",
                partial(
                    answer_pack,
                    candidate,
                    pack,
                    config,
                    cache or workdir / "answers",
                    display,
                ),
            )
        for candidate in candidates if settings.lm_eval_tasks else []:
            display.say(f"lm-eval of {candidate.description.name}")
            candidate.attempt("lm-eval", partial(run_lm_eval, candidate, config))
        if settings.speed.enabled:
            display.say("speed, interleaved")
            other_load = time_all(candidates, config, display)
        # before the contract, whose over-long prompt is not an everyday load
        for candidate in candidates:
            candidate.attempt("memory", partial(weigh, candidate))
        for candidate in candidates if settings.fidelity.enabled else []:
            if candidate.description.variant == verdict.CONVERTED:
                candidate.attempt("prompts", partial(count_prompts, candidate))
        for candidate in candidates if settings.conformance else []:
            display.say(f"chat contract of {candidate.description.name}")
            candidate.attempt("conformance", partial(conform, candidate))
            display.advance(CONFORMANCE_WEIGHT)
        for candidate in candidates:
            candidate.process.close()
        if settings.fidelity.enabled:
            display.say(f"fidelity on {settings.fidelity.tokens} tokens")
            conversions.compare_all(candidates, config, workdir, display)
    report = assemble(candidates, pack, config, warnings, other_load)
    report.write(workdir / "report.json")
    html_report.write(report, workdir, config.promotion)
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
    for candidate in candidates:
        if candidate.store is not None:
            candidate.store.clear()
    if settings.traces:
        try:
            trace_all(candidates, pack)
        except Exception as error:  # noqa: BLE001 - whatever a tracking server answers: the report is logged by now
            log.warning("the traces are not complete: %s: %s", type(error).__name__, error)
    return report


def _memory_warnings(candidates: Sequence[Candidate]) -> tuple[str, ...]:
    """All candidates are in memory at once while they are timed in turn: say so before it hurts."""
    needed = sum(candidate.description.size_bytes or 0 for candidate in candidates)
    available = psutil.virtual_memory().available
    if needed <= available:
        return ()
    text = (
        f"the candidates' files hold {needed / 1e9:.1f} GB, and {available / 1e9:.1f} GB of memory"
        " were available: judge fewer at once"
    )
    log.warning("%s (evaluate.candidates, evaluate.incumbent=false)", text)
    return (text,)
