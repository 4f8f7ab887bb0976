"""The evaluation report that a promotion rests on, with its address and its digest."""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from mlflow.entities import Run
from mlflow.exceptions import MlflowException

from steps.config.gates import GatesConfig
from steps.core.artifact_places import Places
from steps.core.errors import StepError
from steps.core.redaction import redact
from steps.evaluation.report import CandidateReport, ForeignSchemaError, Quality, Report
from steps.registry.client import RegistryClient

# the pack that shows that everything runs; it is weaker than any other, however many items are
# taken of it
SMOKE = "smoke"
REPORT_FILE = "report.json"
REPORT = re.compile(r"runs:/(?P<run>[0-9a-f]{32})/report\.json")
# bytes; a report of a thousand items has a few million
LARGEST_REPORT = 100_000_000
CLOCK_TOLERANCE = timedelta(minutes=5)  # by how much the clocks of two machines may differ


@dataclass(frozen=True)
class Evidence:
    """One report, and the digest that names its bytes."""

    uri: str  # runs:/<run>/report.json
    digest: str  # sha256:… over report.json
    report: Report  # without answers and curves, which weigh most and decide nothing here
    created: datetime  # aware
    experiment_id: str = ""  # of its run; empty where its run is not on this server
    # of report.json, which a signature is over
    text: str = field(default="", repr=False, compare=False)

    @property
    def registered_name(self) -> str:
        return self.report.registered_name

    @property
    def candidates(self) -> tuple[CandidateReport, ...]:
        return self.report.candidates

    def of(self, model_id: str | None, digest: str | None = None) -> CandidateReport | None:
        """What the report says of a model: by id, or by bytes, as an import has a new id."""
        by_id = (one for one in self.candidates if model_id and one.model_id == model_id)
        by_digest = (one for one in self.candidates if digest and one.digest == digest)
        return next(by_id, None) or next(by_digest, None)

    def other_gates(self, gates: GatesConfig) -> str:
        """Which gates of the report are not these, in words; empty where it does not say."""
        if not self.report.policy.get("gates"):
            return ""
        then = _leaves(self.report.policy["gates"])
        now = _leaves(json.loads(json.dumps(asdict(gates))))
        return ", ".join(
            f"{key}={then.get(key)} then, {now.get(key)} now"
            for key in sorted({*then, *now})
            if then.get(key) != now.get(key)
        )

    @property
    def strength(self) -> tuple[bool, int]:
        """How much it weighs beside another report: the smoke pack least, then by items."""
        pack = self.report.pack
        return pack.get("name") != SMOKE, int(str(pack.get("items") or 0))

    @property
    def size(self) -> str:
        """Its pack in words."""
        return f"pack {self.report.pack.get('name', 'unknown')}, {self.strength[1]} items"

    def untimely(self, limit_days: float, now: datetime | None = None) -> str | None:
        """What is wrong with its date, in words; None where it counts.

        A report of exactly the limit counts, and so does one that is ahead of this machine's clock
        by no more than the tolerance.
        """
        age = (now or datetime.now(UTC)) - self.created
        if age < -CLOCK_TOLERANCE:
            ahead = -age.total_seconds() / 86_400
            return (
                f"is dated {ahead:.1f} days in the future (clocks may differ by"
                f" {CLOCK_TOLERANCE.total_seconds() / 60:.0f} minutes)"
            )
        if age > timedelta(days=limit_days):
            return (
                f"is {age.total_seconds() / 86_400:.1f} days old,"
                f" promotion.max_evidence_age_days={limit_days:g}"
            )
        return None


def run_of(uri: str, registry: RegistryClient) -> Run:
    """The run whose report a URI names.

    Raises:
        ServerUnavailableError: the tracking server does not answer, so nothing is known of it.
        StepError: it is no URI of a run's report, or there is no such run.
    """
    match = REPORT.fullmatch(uri)
    if not match:
        raise StepError(
            f"report_uri={redact(uri)!r} is not an artifact of a run (runs:/<run>/report.json), so"
            " its author is not known and it is not read; make one with `mlflow run . -e evaluate"
            " --env-manager local`"
        )
    run_id = match["run"]
    try:
        return registry.repeated(
            f"reading the run {run_id!r}", lambda: registry.client.get_run(run_id)
        )
    except MlflowException as error:
        raise _unreadable(uri, error) from error


def read(uri: str, registry: RegistryClient, places: Places) -> Evidence:
    """Evidence at a report URI; as :func:`of_run`."""
    return of_run(run_of(uri, registry), registry, places)


def of_run(run: Run, registry: RegistryClient, places: Places) -> Evidence:
    """Evidence of a run.

    Args:
        run: of a finished evaluation.
        registry: the calls to the tracking server.
        places: where the run's files must lie, to be read at all.

    Raises:
        ServerUnavailableError: the tracking server does not answer, so nothing is known of the
            report.
        StepError: its files lie elsewhere, there is no report, it is too large, comes too slowly or
            is not one that this version reads.
    """
    uri = f"runs:/{run.info.run_id}/{REPORT_FILE}"
    if not places.holds(run.info.artifact_uri):
        raise StepError(f"report_uri={uri!r}: {places.words(run.info.artifact_uri)}")
    try:
        found = parse(uri, registry.text(run, REPORT_FILE, LARGEST_REPORT))
        return replace(found, experiment_id=str(run.info.experiment_id))
    except (MlflowException, OSError, UnicodeDecodeError, ImportError) as error:
        # ImportError: of the client of an artifact store
        raise _unreadable(uri, error) from error


def _unreadable(uri: str, error: Exception) -> StepError:
    return StepError(
        f"report_uri={uri!r}: no report could be read there ({redact(str(error))}); make one with"
        " `mlflow run . -e evaluate --env-manager local`"
    )


def parse(uri: str, text: str) -> Evidence:
    """Evidence in the text of a ``report.json``.

    Raises:
        StepError: the text is not a report of the schema ``slm-promote/report/1``.
    """
    try:
        report = Report.from_json(text)
        created = datetime.fromisoformat(report.created)
        light = tuple(replace(one, quality=Quality(), series={}) for one in report.candidates)
        evidence = Evidence(
            uri=uri,
            digest="sha256:" + hashlib.sha256(text.encode()).hexdigest(),
            report=replace(report, candidates=light),
            created=created if created.tzinfo else created.replace(tzinfo=UTC),
            text=text,
        )
        _ = evidence.strength
        if not isinstance(report.policy.get("gates") or {}, Mapping):
            raise TypeError("policy.gates is not an object")
        return evidence
    except ForeignSchemaError as error:
        raise StepError(f"report_uri={uri!r}: {error}; evaluate again with this version") from error
    except (ValueError, TypeError) as error:
        raise StepError(
            f"report_uri={uri!r}: not an evaluation report ({type(error).__name__}: {error})"
        ) from error


def _leaves(node: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    leaves: dict[str, Any] = {}
    for key, value in node.items():
        leaves |= (
            _leaves(value, f"{prefix}{key}.")
            if isinstance(value, Mapping)
            else {prefix + key: value}
        )
    return leaves
