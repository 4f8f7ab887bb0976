"""One candidate while it is judged, and the parts of an evaluation that fill in what is known of
it.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import mlflow
from mlflow.exceptions import MlflowException

from steps.config.root import Config
from steps.core import digest
from steps.core.artifact_places import NOWHERE, Places
from steps.core.errors import StepError
from steps.core.redaction import redact
from steps.evaluation import fidelity_texts, lm_eval_tasks, metrics, quality, speed, traces
from steps.evaluation.answers import Answer, AnswerStore, collect
from steps.evaluation.conformance import complete
from steps.evaluation.description import Description, describe
from steps.evaluation.fetched import fetch
from steps.evaluation.packs import Pack
from steps.evaluation.progress import Display
from steps.evaluation.report import Conformance, ConformanceRow, Failure, Quality
from steps.evaluation.worker_process import (
    CandidateFailedError,
    CandidateProcess,
    Limits,
    ModelError,
)
from steps.pipeline import experiments

log = logging.getLogger(__name__)
LOAD_REQUESTS, CONFORMANCE_REQUESTS = 5, 20  # how many times evaluate.request_timeout they may take
TIMING_WEIGHT = 3.0  # rough seconds of one timing


@dataclass
class Candidate:
    """One candidate while it is judged."""

    description: Description
    process: CandidateProcess
    places: Places = NOWHERE  # where its files must lie
    folder: Path | None = None  # of the logged model on this machine, once it is fetched
    failure: Failure | None = None
    metrics: dict[str, float] = field(default_factory=dict)
    quality: Quality = field(default_factory=Quality)
    conformance: Conformance = field(default_factory=Conformance)
    series: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    store: AnswerStore | None = None
    answers: list[Answer] = field(default_factory=list)
    resumed: int = 0  # answers that an earlier process gave
    # tokens of each of fidelity_texts.CONVERSATIONS as served; None where it is refused
    served_prompts: list[int | None] | None = None

    def attempt(self, what: str, part: Callable[[], None]) -> None:
        """Run one part of the evaluation; a failure stays this candidate's own."""
        if self.failure is not None:
            return
        try:
            part()
        except CandidateFailedError as failed:
            self.failure = Failure(f"{what}: {failed.failure.reason}", failed.failure.log_tail)
            log.warning("%s failed: %s", self.description.name, self.failure.reason)
            self.process.close()  # its memory is needed by the others
        except ModelError as error:
            note = f"{what}: {error}"
            if note not in self.notes:  # one that every round repeats is said once
                self.notes.append(note)
                log.warning("%s: %s", self.description.name, note)


def candidates_of(
    uris: Sequence[str], incumbent_uri: str | None, config: Config
) -> list[Candidate]:
    """The models of these URIs, each once, and the incumbent."""
    settings = config.evaluate
    limits = Limits(
        settings.candidate_timeout, settings.request_timeout, settings.memory_limit_bytes
    )
    places = experiments.places(config.promotion.evidence.experiments, mlflow.MlflowClient())
    described: dict[str, Description] = {}  # by model id: an alias and a version may name one model
    for uri in dict.fromkeys(uris):
        description = describe(uri, places=places)
        described.setdefault(description.model_id or uri, description)
    if incumbent_uri is not None:
        incumbent = describe(incumbent_uri, "incumbent", places)
        same = described.get(incumbent.model_id)
        if same is not None:
            incumbent = replace(same, role="incumbent", version=incumbent.version)
        described[incumbent.model_id or incumbent_uri] = incumbent
    names = [description.name for description in described.values()]
    return [
        Candidate(
            description,
            CandidateProcess(name if names.count(name) == 1 else f"{name}-{index}", limits),
            places,
        )
        for index, (name, description) in enumerate(zip(names, described.values(), strict=True))
    ]


def load(subject: Candidate, workdir: Path) -> None:
    """Fetch the model into ``workdir`` and load it in a process that has the fetched folder and
    nothing else.
    """
    try:
        subject.folder = fetch(
            subject.description.load_uri,
            workdir / "models" / subject.process.name,
            subject.places,
        )
        if foreign := digest.about_bytecode(subject.folder):
            raise CandidateFailedError(f"it cannot be judged by its code{foreign}", "")
    except (MlflowException, OSError, StepError) as error:
        raise CandidateFailedError(
            f"its files cannot be fetched: {redact(str(error))}", ""
        ) from error
    subject.process.readable.append(subject.folder)
    subject.process.start()
    try:
        times = subject.process.ask("load", requests=LOAD_REQUESTS, uri=str(subject.folder))
    except ModelError as error:  # a model that does not load cannot be evaluated
        subject.process.close()  # the log is whole once the process has ended
        raise CandidateFailedError(f"does not load: {error}", subject.process.tail()) from error
    subject.metrics[metrics.LOAD] = times["ready_s"]
    # the peak up to here, loading included
    subject.metrics[metrics.LOADED_RSS] = float(subject.process.ask("peak_rss"))
    if subject.description.size_bytes:
        subject.metrics[metrics.SIZE] = float(subject.description.size_bytes)


def answer_pack(
    subject: Candidate, pack: Pack, config: Config, cache: Path, display: Display
) -> None:
    settings = config.evaluate
    subject.store = AnswerStore(
        cache,
        subject.description.digest,
        pack.digest,
        settings.max_new_tokens,
        subject.description.model_id,
        settings.reasoning_tokens,
    )
    if not settings.resume:
        subject.store.clear()
    subject.resumed = len(subject.store.read())
    subject.answers = list(
        collect(
            subject.process,
            pack,
            settings.max_new_tokens,
            subject.store,
            lambda item: display.advance((item.max_tokens or settings.max_new_tokens) / 16),
            reasoning_tokens=settings.reasoning_tokens,
        )
    )
    subject.quality = quality.score(pack, subject.answers)
    subject.metrics |= quality.metrics(subject.quality)


def run_lm_eval(subject: Candidate, config: Config) -> None:
    settings = config.evaluate
    subject.metrics |= lm_eval_tasks.run(
        subject.process,
        settings.lm_eval_tasks,
        settings.lm_eval_path or "",
        settings.seed,
        settings.max_items,
    )


def time_all(subjects: Sequence[Candidate], config: Config, display: Display) -> None:
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


def conform(subject: Candidate) -> None:
    rows = tuple(
        ConformanceRow(**row)
        for row in subject.process.ask("conformance", requests=CONFORMANCE_REQUESTS)
    )
    subject.conformance = Conformance(rows, complete(rows))
    subject.metrics[metrics.CONFORMANCE_PASSED] = float(sum(row.passed for row in rows))
    subject.metrics[metrics.CONFORMANCE_TOTAL] = float(len(rows))


def weigh(subject: Candidate) -> None:
    subject.metrics[metrics.PEAK_RSS] = float(
        max(subject.process.ask("peak_rss"), subject.process.peak_rss)
    )


def count_prompts(subject: Candidate) -> None:
    """What a conversation's prompt is when the model is served: the wrapper renders it, not the
    engine's own template.
    """
    subject.served_prompts = [
        subject.process.ask("prompt_tokens", messages=messages)
        for messages in fidelity_texts.CONVERSATIONS
    ]


def trace_all(subjects: Sequence[Candidate], pack: Pack) -> None:
    """One trace an answer, where a run is active to hold them."""
    if mlflow.active_run() is None:
        return
    answered = [subject for subject in subjects if subject.answers]
    traces.log_dataset(
        pack, [subject.description.model_id for subject in answered if subject.description.model_id]
    )
    for subject in answered:
        traces.log_traces(subject.description, pack, subject.answers)
