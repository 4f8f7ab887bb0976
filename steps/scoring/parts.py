"""One candidate while it is judged, and the parts of an evaluation that fill in what is known of it."""

import logging
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from steps.config.root import Config
from steps.scoring import fidelity, lm_eval_tasks, quality, speed, traces, verdict
from steps.scoring.answers import Answer, AnswerStore, collect
from steps.scoring.candidates import CandidateFailedError, CandidateProcess, Limits, ModelError
from steps.scoring.description import Description
from steps.scoring.packs import Pack
from steps.scoring.progress import Display
from steps.scoring.report import Conformance, ConformanceRow, Failure, Quality

log = logging.getLogger(__name__)
LOAD_REQUESTS, CONFORMANCE_REQUESTS = 5, 20  # how many times evaluate.request_timeout they may take
TIMING_WEIGHT, TOKEN_WEIGHT = 3.0, 0.004  # rough seconds of one timing, and of one fidelity token in one process


@dataclass
class Subject:
    """One candidate while it is judged."""

    description: Description
    process: CandidateProcess
    failure: Failure | None = None
    metrics: dict[str, float] = field(default_factory=dict)
    quality: Quality = field(default_factory=Quality)
    conformance: Conformance = field(default_factory=Conformance)
    series: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    store: AnswerStore | None = None
    answers: list[Answer] = field(default_factory=list)

    def attempt(self, what: str, part: Callable[[], None]) -> None:
        """Run one part of the evaluation; a failure stays this candidate's own."""
        if self.failure is not None:
            return
        try:
            part()
        except CandidateFailedError as failed:
            self.failure = Failure(f"{what}: {failed.failure.reason}", failed.failure.log_tail)
            log.warning("%s failed: %s", self.description.name, self.failure.reason)
        except ModelError as error:
            note = f"{what}: {error}"
            if note not in self.notes:  # one that every round repeats is said once
                self.notes.append(note)
                log.warning("%s: %s", self.description.name, note)


def load(subject: Subject) -> None:
    try:
        times = subject.process.ask("load", requests=LOAD_REQUESTS, uri=subject.description.uri)
    except ModelError as error:  # a model that does not load is no candidate
        raise CandidateFailedError(f"does not load: {error}", subject.process.tail()) from error
    subject.metrics["speed/load_s"] = times["ready_s"]
    subject.metrics["memory/loaded_rss_bytes"] = float(subject.process.ask("peak_rss"))
    if subject.description.size_bytes:
        subject.metrics["size/bytes"] = float(subject.description.size_bytes)


def answer_pack(subject: Subject, pack: Pack, config: Config, cache: Path, display: Display) -> None:
    settings = config.evaluate
    subject.store = AnswerStore(cache, subject.description.digest, pack.digest, settings.max_new_tokens)
    if not settings.resume:
        subject.store.clear()
    subject.answers = list(
        collect(
            subject.process,
            pack,
            settings.max_new_tokens,
            subject.store,
            lambda item: display.advance((item.max_tokens or settings.max_new_tokens) / 16),
        )
    )
    subject.quality = quality.score(pack, subject.answers)
    subject.metrics |= quality.metrics(subject.quality)


def run_lm_eval(subject: Subject, config: Config) -> None:
    settings = config.evaluate
    subject.metrics |= lm_eval_tasks.run(
        subject.process, settings.lm_eval_tasks, settings.lm_eval_path or "", settings.seed, settings.max_items
    )


def time_all(subjects: Sequence[Subject], config: Config, display: Display) -> None:
    alive = {subject.process.name: subject for subject in subjects if subject.failure is None}
    timings = speed.measure(
        {name: subject.process for name, subject in alive.items()},
        config.evaluate.speed,
        lambda name, part: alive[name].attempt("speed", part),
        lambda _: display.advance(TIMING_WEIGHT),
    )
    for name, subject in alive.items():
        subject.metrics |= speed.metrics(timings[name])
        subject.series["speed"] = speed.series(timings[name])


def conform(subject: Subject) -> None:
    rows = tuple(ConformanceRow(**row) for row in subject.process.ask("conformance", requests=CONFORMANCE_REQUESTS))
    subject.conformance = Conformance(rows, bool(rows) and all(row.passed or row.limit is not None for row in rows))
    subject.metrics["conformance/passed"] = float(sum(row.passed for row in rows))
    subject.metrics["conformance/total"] = float(len(rows))


def weigh(subject: Subject) -> None:
    subject.metrics["memory/peak_rss_bytes"] = float(max(subject.process.ask("peak_rss"), subject.process.peak_rss))


def compare_all(subjects: Sequence[Subject], config: Config, workdir: Path, display: Display) -> None:
    """Compare each conversion with the checkpoint of the same snapshot, which the transformers variant carries."""
    settings = config.evaluate
    alive = [subject for subject in subjects if subject.failure is None]
    reference = next((subject for subject in alive if subject.description.variant == "transformers"), None)
    conversions = [subject for subject in alive if subject.description.variant == verdict.CONVERTED]
    if reference is None or not conversions:
        for subject in conversions:
            subject.notes.append("fidelity: no transformers variant of the same snapshot is among the candidates, so there is no reference")
        return
    reference.notes.append("fidelity: this variant holds the checkpoint itself and is the reference")
    limits = Limits(settings.candidate_timeout, settings.request_timeout)
    folder = _weights(reference)
    by_name: dict[str, Subject] = {}
    with ExitStack() as stack:
        started: dict[str, tuple[CandidateProcess, Path]] = {}
        for subject in conversions:
            theirs = subject.description.snapshot_digest
            if theirs != reference.description.snapshot_digest:
                subject.notes.append("fidelity: the checkpoint among the candidates is of another snapshot")
                continue
            weights = _weights(subject)
            if weights is None:
                subject.notes.append("fidelity: the logged model holds no folder with a genai_config.json")
                continue
            name = subject.process.name
            by_name[name] = subject
            started[name] = stack.enter_context(CandidateProcess(f"{name}-logits", workdir, limits)), weights
        if folder is None or not started:
            return
        process = stack.enter_context(CandidateProcess(f"{reference.process.name}-reference", workdir, limits))
        try:
            found = fidelity.measure(
                process,
                folder,
                started,
                settings.fidelity,
                workdir,
                lambda name, part: by_name[name].attempt("fidelity", part),
                lambda tokens: display.advance(TOKEN_WEIGHT * tokens * len(subjects)),
            )
        except (CandidateFailedError, ModelError) as error:
            for subject in by_name.values():
                subject.notes.append(f"fidelity: the reference failed: {error}")
            return
    for name, comparison in found.items():
        by_name[name].metrics |= fidelity.metrics(comparison)
        by_name[name].series["fidelity"] = fidelity.series(comparison)
        if "fidelity/perplexity_reference" in by_name[name].metrics:
            reference.metrics["fidelity/perplexity"] = by_name[name].metrics["fidelity/perplexity_reference"]


def _weights(subject: Subject) -> Path | None:
    """Folder of weights in the logged model; on this machine's own store nothing is copied."""
    import mlflow

    return fidelity.folder_of(Path(mlflow.artifacts.download_artifacts(subject.description.uri)), subject.description.variant)


def trace_all(subjects: Sequence[Subject], pack: Pack) -> None:
    """One trace an answer, where a run is active to hold them."""
    import mlflow

    if mlflow.active_run() is None:
        return
    answered = [subject for subject in subjects if subject.answers]
    traces.log_dataset(pack, [subject.description.model_id for subject in answered if subject.description.model_id])
    for subject in answered:
        traces.log_traces(subject.description, pack, subject.answers)
