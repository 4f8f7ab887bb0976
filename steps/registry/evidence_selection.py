"""Which report decides: one from where promoters trust, and of several the strongest that still counts.

A run's tags and its ``report.json`` are written by whoever may edit its experiment, and every user may have an experiment of his own; the
names in the tags prove nothing. What a tracking server does enforce is who may edit which experiment and which registered model.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import TYPE_CHECKING

from steps.config.root import Config
from steps.core import signatures
from steps.core.redaction import redact
from steps.pipeline import filters
from steps.pipeline.errors import StepError
from steps.registry import evidence as evidence_module
from steps.registry.aliases import DIGEST_TAG, EVALUATION_TAG, EVIDENCE_TAG
from steps.registry.evidence import Evidence
from steps.registry.gateway import Gateway, PermissionRefusedError, ServerUnavailableError, Version

if TYPE_CHECKING:
    from mlflow.entities import Run

log = logging.getLogger(__name__)

REPORT_FILE = "report.json"
SIGNATURE = ".sig"  # of the file beside report.json that holds its detached signature
LARGEST_SIGNATURE = 1024  # bytes; one of these kinds has about a hundred
LARGEST_REPORT = 100_000_000  # bytes of a report from elsewhere; one of a thousand items has a few million
SIGNERS = "promotion.evidence.signers"
REPORT = re.compile(r"runs:/(?P<run>[^/]+)/report\.json")
REPORTS_READ = 20  # newest finished evaluations of a model that are read to find the strongest
SEEN_READ = 256  # reports kept in memory, so that `watch` does not fetch them at each look
_named: set[str] = set()  # runs that this process has said it ignores


@dataclass(frozen=True)
class Trust:
    """Where evidence counts from."""

    gateway: Gateway
    experiments: frozenset[str]  # ids
    by_policy: bool  # the policy names them; else they are the running step's own and those of the versions' logged models
    signers: tuple[str, ...] = ()  # PEM files of public keys

    def against(self, report: Evidence) -> str:
        """Why a report does not count, in words; empty where it does.

        Raises:
            ConfigError: a key file of ``promotion.evidence.signers`` cannot be read.
        """
        found = REPORT.fullmatch(report.uri)
        if not found:
            return f"{redact(report.uri)} is not an artifact of a run (runs:/<run>/report.json), so nobody knows who wrote it"
        run: Run = self.gateway.repeated(f"reading the run {found['run']!r}", lambda: self.gateway.client.get_run(found["run"]))
        return "" if run.info.experiment_id in self.experiments or self.signer(run, report) else self.words(run)

    def words(self, run: Run) -> str:
        """Why the report of a run does not count, and what would make it count."""
        unsigned = f", and it is signed by none of {SIGNERS}" if self.signers else ""
        names = ", ".join(sorted(repr(_name_of(self.gateway, place)) for place in self.experiments)) or "no experiment"
        whose = "promotion.evidence.experiments" if self.by_policy else "the experiments of this step and of the version's logged model"
        name = _name_of(self.gateway, run.info.experiment_id)
        return (
            f"run {run.info.run_id} is in experiment {name!r}, which does not count{unsigned}; evidence counts from {names} ({whose}): "
            f"evaluate there, or name the experiment in promotion.evidence.experiments, or sign the report by a key of {SIGNERS}"
        )

    def signature(self, run: Run) -> bytes | None:
        """The signature beside a run's report; None where there is none, or one of the files is of a size that neither ever has."""
        from mlflow.exceptions import MlflowException

        run_id, name = run.info.run_id, REPORT_FILE + SIGNATURE
        if not self.signers:
            return None
        files = self.gateway.repeated(f"listing the files of run {run_id!r}", lambda: self.gateway.client.list_artifacts(run_id))
        sizes = {each.path: each.file_size or 0 for each in files}
        if name not in sizes or sizes[name] > LARGEST_SIGNATURE or sizes.get(REPORT_FILE, 0) > LARGEST_REPORT:
            return None
        try:
            return self.gateway.text(f"runs:/{run_id}/{name}").encode()
        except (MlflowException, OSError):  # removed meanwhile, or no text
            return None

    def signer(self, run: Run, report: Evidence) -> str | None:
        """Name of the key of the policy that signed a report's bytes as they were read, if one did."""
        signature = self.signature(run)
        return signatures.verify(report.text.encode(), signature, self.signers, field=SIGNERS) if signature else None


@dataclass(frozen=True)
class Choice:
    """The report to go by, and what speaks against it."""

    evidence: Evidence | None
    trouble: str  # why there is none, or why the one that was named does not count


def trusted(gateway: Gateway, config: Config, versions: Iterable[Version] = ()) -> Trust:
    """Where evidence about these versions counts from, by the policy."""
    from steps.pipeline import experiments

    settings = config.promotion.evidence
    signers = tuple(settings.signers)
    if settings.experiments:
        known = gateway.repeated("looking for the experiments", lambda: experiments.named(settings.experiments, gateway.client))
        for name in sorted({*settings.experiments} - {*known.values()}):
            _say(f"experiment {name}", f"promotion.evidence.experiments: there is no experiment {name!r} on this tracking server")
        return Trust(gateway, frozenset(known), True, signers)
    ids = {experiments.own()}
    for version in versions:
        logged = gateway.logged_model(version.model_id) if version.model_id else None
        if logged is not None:
            ids.add(str(logged.experiment_id))
    return Trust(gateway, frozenset(ids), False, signers)


def choose(gateway: Gateway, version: Version, config: Config) -> Choice:
    """The report about a version that decides.

    The one that ``report_uri`` names; else the strongest of the one on the version's tags and the finished evaluations that judged the
    same logged model. Where the policy names no experiment, the report on the tags counts wherever it is from: whoever may write them may
    move the aliases too.

    Raises:
        StepError: ``report_uri`` names no report.
    """
    trust = trusted(gateway, config, [version])
    if config.report_uri:
        report = evidence_module.read(config.report_uri, gateway)
        return Choice(report, trust.against(report) or weaker(report, version, trust, config))
    tagged, trouble = recorded(version, trust)

    def about(report: Evidence) -> bool:
        return report.of(version.model_id, version.tags.get(DIGEST_TAG)) is not None

    return Choice(strongest(gateway, version.name, config, trust, about, tagged), trouble)


def recorded(version: Version, trust: Trust) -> tuple[Evidence | None, str]:
    """The report on a version's tags, or why it does not count."""
    uri = version.tags.get(EVALUATION_TAG)
    if not uri:
        return None, "it has no evidence"
    try:
        report = evidence_module.read(uri, trust.gateway)
    except ServerUnavailableError:
        raise
    except StepError as error:
        return None, f"its evidence cannot be read ({error})"
    if report.digest != version.tags.get(EVIDENCE_TAG):
        return None, f"its evidence {uri} was changed after it was recorded"
    if trust.by_policy and (why := trust.against(report)):
        return None, f"its recorded evidence {uri} does not count ({why})"
    return report, ""


def weaker(report: Evidence, version: Version, trust: Trust, config: Config) -> str:
    """That a version's recorded evidence still counts and is stronger than a report, in words; empty where it is not."""
    earlier = kept(report, version, trust, config)
    if earlier is None or not counts(report, config):
        return ""
    known = f"version {version.number} ({earlier.size}: {earlier.uri})"
    return f"the report ({report.size}) is weaker than evidence that still counts, of {known}; evaluate with at least as many items"


def kept(report: Evidence, version: Version, trust: Trust, config: Config) -> Evidence | None:
    """The evidence on a version's tags that a report must not replace: it counts, and the report does not or is weaker."""
    if version.tags.get(EVIDENCE_TAG) == report.digest:
        return None
    earlier, _ = recorded(version, trust)
    if earlier is None or not counts(earlier, config) or (counts(report, config) and earlier.strength <= report.strength):
        return None
    judged = earlier.of(version.model_id, version.tags.get(DIGEST_TAG))
    return earlier if judged and judged.status == "evaluated" else None


def counts(report: Evidence, config: Config, now: datetime | None = None) -> bool:
    """Whether a report is of an age that counts, and judged by the gates of today."""
    return report.untimely(config.promotion.max_evidence_age_days, now) is None and not report.other_gates(config.promotion.gates)


def best(reports: Sequence[Evidence], config: Config) -> Evidence | None:
    """The report that decides: one that counts before one that does not, then the stronger, then the newer."""
    now = datetime.now(UTC)
    return max(reports, key=lambda each: (counts(each, config, now), each.strength, each.created), default=None)


def strongest(
    gateway: Gateway,
    name: str,
    config: Config,
    trust: Trust,
    about: Callable[[Evidence], bool] = lambda _: True,
    tagged: Evidence | None = None,
) -> Evidence | None:
    """The report of a registered model that decides. A newer one that does not count is named in the log, with what would make it count.

    Args:
        gateway: the tracking server.
        name: registered model.
        config: the composed config; ``promotion`` counts.
        trust: where evidence counts from.
        about: which reports are looked for.
        tagged: one that is known already.
    """
    inside, outside = _finished(gateway, name, trust)
    found = [tagged] if tagged else []
    for run in inside:
        report = _read(gateway, run)
        if report is not None and about(report) and all(report.uri != each.uri for each in found):
            found.append(report)
    ignored: list[Run] = []
    for run in outside:
        if tagged and tagged.uri == _uri(run):
            continue
        report = _read(gateway, run) if trust.signature(run) else None
        if report is None or not trust.signer(run, report):
            ignored.append(run)
        elif about(report):
            found.append(report)
    chosen = best(found, config)
    for run in ignored:
        if chosen is None or run.info.start_time > chosen.created.timestamp() * 1000:
            _say(run.info.run_id, f"{_uri(run)} about {name!r} is ignored: {trust.words(run)}")
    return chosen


def _finished(gateway: Gateway, name: str, trust: Trust) -> tuple[list[Run], list[Run]]:
    """Runs of finished evaluations of a registered model that left a report of their own: those that count, and all others."""
    words = f"attributes.status = 'FINISHED' AND tags.`slm.step` = 'evaluate' AND {filters.equals('tags.`slm.model`', name)}"

    def search(places: list[str]) -> list[Run]:
        if not places:
            return []
        runs = gateway.client.search_runs(places, words, order_by=["attributes.start_time DESC"], max_results=REPORTS_READ)
        return [run for run in runs if run.data.tags.get("slm.output") == _uri(run)]

    def call() -> tuple[list[Run], list[Run]]:
        known = [each.experiment_id for each in gateway.client.search_experiments()]
        return search([*trust.experiments]), search([place for place in known if place not in trust.experiments])

    return gateway.repeated(f"looking for evaluations of {name!r}", call)


def _uri(run: Run) -> str:
    return f"runs:/{run.info.run_id}/{REPORT_FILE}"


def _read(gateway: Gateway, run: Run) -> Evidence | None:
    """The report of a run; None where it was removed or is of another schema, as another one may do."""
    import mlflow

    try:
        return _seen(mlflow.get_tracking_uri(), run.info.run_id, run.info.end_time, gateway)
    except ServerUnavailableError:
        raise
    except StepError:
        return None


@lru_cache(maxsize=SEEN_READ)
def _seen(_server: str, run_id: str, _ended: int | None, gateway: Gateway) -> Evidence:
    return evidence_module.read(f"runs:/{run_id}/{REPORT_FILE}", gateway)


def _name_of(gateway: Gateway, experiment_id: str) -> str:
    """Name of an experiment; its id where this user may not read it."""
    try:
        return str(gateway.repeated("reading the experiment", lambda: gateway.client.get_experiment(experiment_id)).name)
    except PermissionRefusedError:
        return experiment_id


def _say(key: str, words: str) -> None:
    if key not in _named:
        _named.add(key)
        log.warning("%s", redact(words))
