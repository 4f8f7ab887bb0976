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
from steps.evaluation.other_load import OtherLoad, watched
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


def load(candidate: Candidate, workdir: Path) -> None:
    """Fetch the model into ``workdir`` and load it in a process that has the fetched folder and
    nothing else.
    """
    try:
        candidate.folder = fetch(
            candidate.description.load_uri,
            workdir / "models" / candidate.process.name,
            candidate.places,
        )
        if foreign := digest.about_bytecode(candidate.folder):
            raise CandidateFailedError(f"it cannot be judged by its code{foreign}", "")
    except (MlflowException, OSError, StepError) as error:
        raise CandidateFailedError(
            f"its files cannot be fetched: {redact(str(error))}", ""
        ) from error
    candidate.process.readable.append(candidate.folder)
    candidate.process.start()
    try:
        times = candidate.process.ask("load", requests=LOAD_REQUESTS, uri=str(candidate.folder))
    except ModelError as error:  # a model that does not load cannot be evaluated
        candidate.process.close()  # the log is whole once the process has ended
        raise CandidateFailedError(f"does not load: {error}", candidate.process.tail()) from error
    candidate.metrics[metrics.LOAD] = times["ready_s"]
    # the peak up to here, loading included
    candidate.metrics[metrics.LOADED_RSS] = float(candidate.process.ask("peak_rss"))
    if candidate.description.size_bytes:
        candidate.metrics[metrics.SIZE] = float(candidate.description.size_bytes)


def answer_pack(
    candidate: Candidate, pack: Pack, config: Config, cache: Path, display: Display
) -> None:
    settings = config.evaluate
    candidate.store = AnswerStore(
        cache,
        candidate.description.digest,
        pack.digest,
        settings.max_new_tokens,
        candidate.description.model_id,
        settings.reasoning_tokens,
        settings.concurrent_items,
    )
    if not settings.resume:
        candidate.store.clear()
    candidate.resumed = len(candidate.store.read())
    candidate.answers = collect(
        candidate.process,
        pack,
        settings.max_new_tokens,
        candidate.store,
        lambda item: display.advance((item.max_tokens or settings.max_new_tokens) / 16),
        reasoning_tokens=settings.reasoning_tokens,
        concurrent_items=settings.concurrent_items,
    )
    candidate.quality = quality.score(pack, candidate.answers, settings.concurrent_items)
    candidate.metrics |= quality.metrics(candidate.quality)


def run_lm_eval(candidate: Candidate, config: Config) -> None:
    settings = config.evaluate
    candidate.metrics |= lm_eval_tasks.run(
        candidate.process,
        settings.lm_eval_tasks,
        settings.lm_eval_path or "",
        settings.seed,
        settings.max_items,
    )


def time_all(candidates: Sequence[Candidate], config: Config, display: Display) -> OtherLoad | None:
    """Time the candidates that are alive; returns what else the machine did meanwhile."""
    alive = {
        candidate.process.name: candidate for candidate in candidates if candidate.failure is None
    }
    with watched(config.evaluate.speed.max_other_load) as watch:
        timings = speed.measure(
            {name: candidate.process for name, candidate in alive.items()},
            config.evaluate.speed,
            lambda name, part: alive[name].attempt("speed", part),
            lambda _: display.advance(TIMING_WEIGHT),
        )
    for name, candidate in alive.items():
        candidate.metrics |= speed.metrics(timings[name])
        candidate.series["speed"] = speed.series(timings[name])
    return watch.load


def conform(candidate: Candidate) -> None:
    rows = tuple(
        ConformanceRow(**row)
        for row in candidate.process.ask("conformance", requests=CONFORMANCE_REQUESTS)
    )
    candidate.conformance = Conformance(rows, complete(rows))
    candidate.metrics[metrics.CONFORMANCE_PASSED] = float(sum(row.passed for row in rows))
    candidate.metrics[metrics.CONFORMANCE_TOTAL] = float(len(rows))


def weigh(candidate: Candidate) -> None:
    candidate.metrics[metrics.PEAK_RSS] = float(
        max(candidate.process.ask("peak_rss"), candidate.process.peak_rss)
    )


def count_prompts(candidate: Candidate) -> None:
    """What a conversation's prompt is when the model is served: the wrapper renders it, not the
    engine's own template.
    """
    candidate.served_prompts = [
        candidate.process.ask("prompt_tokens", messages=messages)
        for messages in fidelity_texts.CONVERSATIONS
    ]


def trace_all(candidates: Sequence[Candidate], pack: Pack) -> None:
    """One trace an answer, where a run is active to hold them."""
    if mlflow.active_run() is None:
        return
    answered = [candidate for candidate in candidates if candidate.answers]
    traces.log_dataset(
        pack,
        [
            candidate.description.model_id
            for candidate in answered
            if candidate.description.model_id
        ],
    )
    for candidate in answered:
        traces.log_traces(candidate.description, pack, candidate.answers)
