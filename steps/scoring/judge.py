"""Judge candidates side by side and write the report.

``judge`` loads each candidate in a process of its own, takes the quality pass, the timings, the chat contract and the fidelity to
the checkpoint, and asks the policy for a verdict; ``log_report`` puts the result on the active run and on each logged model.
"""

import logging
import math
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from steps.config.gates import GatesConfig
from steps.config.root import Config
from steps.scoring import fidelity, machine, packs, page, quality, speed, traces, verdict
from steps.scoring.answers import Answer, AnswerStore, collect
from steps.scoring.candidates import CandidateFailedError, CandidateProcess, Limits, ModelError
from steps.scoring.description import Description, describe
from steps.scoring.packs import Pack
from steps.scoring.progress import Display
from steps.scoring.report import (
    HOLD,
    CandidateReport,
    Conformance,
    ConformanceRow,
    Failure,
    Quality,
    Report,
    Verdict,
)

log = logging.getLogger(__name__)
LOAD_WEIGHT, CONFORMANCE_WEIGHT, TIMING_WEIGHT, TOKEN_WEIGHT = 10.0, 25.0, 3.0, 0.02  # rough seconds, for the remaining time only


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
            self.notes.append(f"{what}: {error}")
            log.warning("%s: %s: %s", self.description.name, what, error)


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
    subjects = _subjects(candidate_uris, incumbent_uri, config, workdir)
    weight = len(subjects) * (
        LOAD_WEIGHT
        + sum((item.max_tokens or settings.max_new_tokens) / 16 for item in pack.items)
        + (CONFORMANCE_WEIGHT if settings.conformance else 0)
        + (TIMING_WEIGHT * speed.steps(settings.speed) if settings.speed.enabled else 0)
    ) + (TOKEN_WEIGHT * settings.fidelity.tokens if settings.fidelity.enabled else 0)
    with Display(weight) as display, ExitStack() as stack:
        for subject in subjects:
            stack.enter_context(subject.process)
            display.say(f"load {subject.description.name}")
            subject.attempt("load", lambda subject=subject: _load(subject))  # type: ignore[misc]
            display.advance(LOAD_WEIGHT)
        for subject in subjects:
            display.say(f"quality of {subject.description.name} on {len(pack.items)} items")
            subject.attempt("quality", lambda subject=subject: _quality(subject, pack, config, cache or workdir / "answers", display))  # type: ignore[misc]
        if settings.speed.enabled:
            display.say("speed, interleaved")
            _speed(subjects, config, display)
        for subject in subjects if settings.conformance else []:
            display.say(f"chat contract of {subject.description.name}")
            subject.attempt("conformance", lambda subject=subject: _conformance(subject))  # type: ignore[misc]
            display.advance(CONFORMANCE_WEIGHT)
        for subject in subjects:
            subject.attempt("memory", lambda subject=subject: _memory(subject))  # type: ignore[misc]
            subject.process.close()
        if settings.fidelity.enabled:
            display.say(f"fidelity on {settings.fidelity.tokens} tokens")
            _fidelity(subjects, config, workdir, display)
        if settings.traces:
            display.say("traces")
            _traces(subjects, pack)
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


def _load(subject: Subject) -> None:
    try:
        times = subject.process.ask("load", uri=subject.description.uri)
    except ModelError as error:  # a model that does not load is no candidate
        raise CandidateFailedError(f"does not load: {error}", subject.process.tail()) from error
    subject.metrics["speed/load_s"] = times["ready_s"]
    subject.metrics["memory/loaded_rss_bytes"] = float(subject.process.ask("peak_rss"))
    if subject.description.size_bytes:
        subject.metrics["size/bytes"] = float(subject.description.size_bytes)


def _quality(subject: Subject, pack: Pack, config: Config, cache: Path, display: Display) -> None:
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


def _speed(subjects: Sequence[Subject], config: Config, display: Display) -> None:
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


def _conformance(subject: Subject) -> None:
    rows = tuple(ConformanceRow(**row) for row in subject.process.ask("conformance"))
    subject.conformance = Conformance(rows, bool(rows) and all(row.passed or row.limit is not None for row in rows))
    subject.metrics["conformance/passed"] = float(sum(row.passed for row in rows))
    subject.metrics["conformance/total"] = float(len(rows))


def _memory(subject: Subject) -> None:
    subject.metrics["memory/peak_rss_bytes"] = float(max(subject.process.ask("peak_rss"), subject.process.peak_rss))


def _fidelity(subjects: Sequence[Subject], config: Config, workdir: Path, display: Display) -> None:
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
                lambda tokens: display.advance(TOKEN_WEIGHT * tokens),
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


def _traces(subjects: Sequence[Subject], pack: Pack) -> None:
    """One trace an answer, where a run is active to hold them."""
    import mlflow

    if mlflow.active_run() is None:
        return
    answered = [subject for subject in subjects if subject.answers]
    traces.log_dataset(pack, [subject.description.model_id for subject in answered if subject.description.model_id])
    for subject in answered:
        traces.log_traces(subject.description, pack, subject.answers)


def _report(subjects: Sequence[Subject], pack: Pack, config: Config) -> Report:
    gates: GatesConfig = getattr(config.promotion, "gates", None) or GatesConfig()
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
        created=datetime.now(UTC).isoformat(timespec="seconds"),
    )


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
    for candidate in report.candidates:
        mlflow.log_metrics(candidate.metrics, model_id=candidate.model_id or None)
        mlflow.log_metrics({f"{candidate.variant}/{name}": value for name, value in candidate.metrics.items()})
