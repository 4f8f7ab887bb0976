"""What a server tells Prometheus, by model and version; nothing of a prompt or an answer."""

import time
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from steps.serving.deployment import Deployment
from steps.serving.served_version import ServedVersion

if TYPE_CHECKING:
    from steps.serving.routes import Routes

VERSION = ("model", "version", "variant")
FIRST_TOKEN_BUCKETS = (0.025, 0.05, 0.1, 0.2, 0.35, 0.5, 0.75, 1, 1.5, 2.5, 5, 10, 30, 60)
TOKEN_BUCKETS = (0.002, 0.005, 0.01, 0.015, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1)
ANSWER_BUCKETS = (0.1, 0.25, 0.5, 1, 2, 4, 8, 15, 30, 60, 120)


class Metrics:
    """Counters and histograms of one server."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        answers = (*VERSION, "role")

        def counter(name: str, about: str, labels: tuple[str, ...]) -> Counter:
            return Counter(name, about, labels, registry=self.registry)

        def histogram(name: str, about: str, buckets: tuple[float, ...]) -> Histogram:
            return Histogram(name, about, answers, buckets=buckets, registry=self.registry)

        self._requests = counter(
            "slm_requests", "Requests by outcome: ok, cancelled, timeout, or an HTTP status.",
            (*answers, "alias", "outcome"),
        )  # fmt: skip
        self._rejected = counter(
            "slm_rejected", "Requests that reached no version, by HTTP status and code.",
            ("status", "code"),
        )  # fmt: skip
        self._first = histogram(
            "slm_time_to_first_token_seconds",
            "From when a request arrives to its first text.",
            FIRST_TOKEN_BUCKETS,
        )
        self._between = histogram(
            "slm_inter_token_seconds",
            "Mean seconds between the tokens of an answer, one value an answer.",
            TOKEN_BUCKETS,
        )
        self._answer = histogram(
            "slm_answer_seconds", "From when a request arrives to its whole answer.", ANSWER_BUCKETS
        )
        self._prompt_tokens = counter("slm_prompt_tokens", "Tokens of prompts.", answers)
        self._tokens = counter("slm_completion_tokens", "Generated tokens.", answers)
        self._refusals = counter("slm_refusals", "Answers that decline what was asked.", answers)
        self._formats = counter(
            "slm_formats", "Answers under a response_format, by whether they are valid JSON.",
            (*answers, "valid"),
        )  # fmt: skip
        self._restarts = counter(
            "slm_worker_restarts", "Workers that ended by themselves.", VERSION
        )
        self._failures = counter("slm_load_failures", "Versions that could not be served.", VERSION)
        self._moves = counter("slm_alias_moves", "Moves of an alias followed.", ("model", "alias"))
        self._traces = counter(
            "slm_traces",
            "Sampled requests by what became of their trace: written, or why it was dropped.",
            ("outcome",),
        )
        self._registry_up = Gauge(
            "slm_registry_up", "1 where the registry answers.", ("model",), registry=self.registry
        )
        self._serving = Gauge(
            "slm_serving",
            "1 for the version that is served under an alias.",
            (*VERSION, "alias", "digest"),
            registry=self.registry,
        )
        self._shown: dict[tuple[str, str], tuple[str, ...]] = {}

    def watch(self, routes: "Routes") -> None:
        """Show the queues and workers of what is served."""
        self.registry.register(_Queues(routes))

    def text(self) -> bytes:
        """All of it in Prometheus' text format."""
        return generate_latest(self.registry)

    # --- events

    def rejected(self, status: int, code: str | None) -> None:
        self._rejected.labels(str(status), code or "").inc()

    def worker_replaced(self, version: ServedVersion) -> None:
        self._restarts.labels(*_of(version)).inc()

    def load_failed(self, version: ServedVersion) -> None:
        self._failures.labels(*_of(version)).inc()

    def traced(self, outcome: str) -> None:
        """A sampled request's trace was written, or dropped."""
        self._traces.labels(outcome).inc()

    def registry_up(self, name: str, up: bool) -> None:
        self._registry_up.labels(name).set(up)

    def serving(self, name: str, alias: str, version: ServedVersion) -> None:
        """An alias is served by this version now."""
        before = self._shown.get((name, alias))
        if before is not None:
            self._serving.remove(*before)
            self._moves.labels(name, alias).inc()
        shown = (*_of(version), alias, version.digest)
        self._serving.labels(*shown).set(1)
        self._shown[name, alias] = shown

    def answering(self, version: ServedVersion, alias: str, role: str) -> "AnswerTimes":
        """Begin to take the times of one answer; ``role`` is ``answered`` or ``shadow``."""
        return AnswerTimes(self, (*_of(version), role), alias)


class AnswerTimes:
    """The times of one answer, from when its request arrived.

    Attributes:
        started: seconds since 1970, when the request arrived.
        seconds: from then to the end.
        first_token_s: seconds to the first text; None before there is any.
        inter_token_s: mean seconds between the tokens of a whole answer; None where there are none.
        refusal: whether it declines what was asked; None where nobody looked.
        valid: whether it is the JSON that was asked for; None where none was.
    """

    def __init__(self, metrics: Metrics, labels: tuple[str, ...], alias: str) -> None:
        self._metrics, self._labels, self._alias = metrics, labels, alias
        self._arrived, self.started = time.monotonic(), time.time()
        self._first: float | None = None
        self.seconds = 0.0
        self.first_token_s: float | None = None
        self.inter_token_s: float | None = None
        self.refusal: bool | None = None
        self.valid: bool | None = None

    def text(self) -> None:
        """Some text came."""
        if self._first is None:
            self._first = time.monotonic()
            self.first_token_s = self._first - self._arrived
            self._metrics._first.labels(*self._labels).observe(self.first_token_s)

    def ended(self, outcome: str, *, prompt_tokens: int = 0, tokens: int = 0) -> None:
        """The answer is whole, or will never be."""
        metrics, labels, now = self._metrics, self._labels, time.monotonic()
        metrics._requests.labels(*labels, self._alias, outcome).inc()
        metrics._prompt_tokens.labels(*labels).inc(prompt_tokens)
        metrics._tokens.labels(*labels).inc(tokens)
        self.seconds = now - self._arrived
        if outcome == "ok":
            metrics._answer.labels(*labels).observe(self.seconds)
            if self._first is not None and tokens > 1:
                self.inter_token_s = (now - self._first) / (tokens - 1)
                metrics._between.labels(*labels).observe(self.inter_token_s)

    def refused(self, refusal: bool) -> None:
        """Whether the answer declines what was asked."""
        self.refusal = refusal
        if refusal:
            self._metrics._refusals.labels(*self._labels).inc()

    def formatted(self, valid: bool) -> None:
        """The answer was to be JSON."""
        self.valid = valid
        self._metrics._formats.labels(*self._labels, str(valid).lower()).inc()


class _Queues(Collector):
    """Requests and memory of each served version, as they are when they are asked for."""

    def __init__(self, routes: "Routes") -> None:
        self._routes = routes

    def collect(self) -> Iterator[GaugeMetricFamily]:
        active = GaugeMetricFamily("slm_requests_active", "Requests answered now.", labels=VERSION)
        waiting = GaugeMetricFamily("slm_requests_waiting", "Requests queued.", labels=VERSION)
        ready = GaugeMetricFamily("slm_worker_ready", "1 where a worker is up.", labels=VERSION)
        held = GaugeMetricFamily("slm_worker_resident_bytes", "Memory of it.", labels=VERSION)
        for deployment in _distinct(route.deployment for route in self._routes.all):
            labels = _of(deployment.version)
            active.add_metric(labels, deployment.admission.active)
            waiting.add_metric(labels, deployment.admission.waiting)
            ready.add_metric(labels, int(deployment.ready))
            if deployment.ready and deployment.worker is not None:
                held.add_metric(labels, deployment.worker.resident())
        yield from (active, waiting, ready, held)


def _distinct(deployments: Iterable[Deployment | None]) -> list[Deployment]:
    return list({id(one): one for one in deployments if one is not None}.values())


def _of(version: ServedVersion) -> tuple[str, str, str]:
    return version.name, str(version.number), version.variant
