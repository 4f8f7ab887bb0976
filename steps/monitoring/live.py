"""What the server's traces say of a version in a period."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from mlflow.entities import LifecycleStage, Trace

from steps.core import search, tags
from steps.registry.client import RegistryClient
from steps.registry.model_version import Version
from steps.serving.answered import AnswerFigures

log = logging.getLogger(__name__)

A_PAGE = 500  # traces that one request to the tracking server brings


@dataclass(frozen=True)
class LiveAnswer:
    """One sampled request.

    Attributes:
        figures: of its answer.
        started_ms: since 1970, when the request arrived.
        processor: of the machine that answered; empty where the trace does not say.
    """

    figures: AnswerFigures
    started_ms: int
    processor: str = ""


@dataclass(frozen=True)
class Period:
    """The sampled requests of a version in a period.

    Attributes:
        since: when it began.
        until: when it ended.
        answers: oldest first.
        notes: what a reader must know of them, one sentence each.
    """

    since: datetime
    until: datetime
    answers: tuple[LiveAnswer, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def processors(self) -> tuple[str, ...]:
        """Of the machines that answered."""
        return tuple(sorted({one.processor for one in self.answers if one.processor}))


def read(
    registry: RegistryClient,
    version: Version,
    digest: str,
    *,
    experiment: str,
    hours: float,
    most: int,
    now: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> Period:
    """The newest sampled requests of a version.

    Args:
        registry: the calls to the tracking server.
        version: that was asked.
        digest: of its bytes; traces about other bytes do not count.
        experiment: name of the one that the server writes to.
        hours: up to now.
        most: requests that are read.
        now: the time.

    Raises:
        ServerUnavailableError: the tracking server does not answer.
        StepError: MLflow's search cannot name the model.
    """
    until = now()
    since = until - timedelta(hours=hours)
    client, key = registry.client, "looking for the experiment of the traces"
    place = registry.repeated(key, lambda: client.get_experiment_by_name(experiment))
    if place is None or place.lifecycle_stage != LifecycleStage.ACTIVE:
        return Period(
            since,
            until,
            notes=(
                f"there is no experiment {experiment!r} (serve.trace_experiment): a server writes"
                " traces there with serve.trace_sample above 0",
            ),
        )
    words = " AND ".join(
        (
            search.equals(f"tags.`{tags.MODEL}`", version.name),
            search.equals(f"tags.`{tags.VERSION}`", str(version.number)),
            f"trace.timestamp_ms >= {int(since.timestamp() * 1000)}",
        )
    )

    def newest() -> list[Trace]:
        found: list[Trace] = []
        token: str | None = None
        while len(found) < most:
            page = client.search_traces(
                locations=[place.experiment_id],
                filter_string=words,
                max_results=min(A_PAGE, most - len(found)),
                order_by=["timestamp_ms DESC"],
                page_token=token,
                include_spans=False,
            )
            found += page
            token = page.token
            if not token:
                break
        return found

    found = registry.repeated(f"reading the traces of {version.uri}", newest)
    return _period(since, until, found, digest, most)


def _period(
    since: datetime, until: datetime, found: Sequence[Trace], digest: str, most: int
) -> Period:
    answers: list[LiveAnswer] = []
    others = damaged = 0
    for trace in reversed(found):
        if trace.info.tags.get(tags.DIGEST) != digest:
            others += 1
            continue
        try:
            figures = AnswerFigures.from_json(trace.info.trace_metadata.get(tags.ANSWER, ""))
        except ValueError:
            damaged += 1
            continue
        started = int(trace.info.request_time)
        answers.append(LiveAnswer(figures, started, trace.info.tags.get(tags.PROCESSOR, "")))
    notes = []
    if len(found) >= most:
        notes.append(
            f"only the newest {most} sampled requests of the period were read"
            " (monitor.max_requests)"
        )
    if others:
        notes.append(f"{others} traces are about other bytes than the version's and do not count")
    if damaged:
        notes.append(f"{damaged} traces hold no figures that can be read and do not count")
    return Period(since, until, tuple(answers), tuple(notes))
