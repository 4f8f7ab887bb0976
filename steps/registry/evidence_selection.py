"""Which report decides: one from where promoters trust, and of several the strongest that still
counts.

A run's tags and its ``report.json`` are written by whoever may edit its experiment, and every user
may have an experiment of his own; the names in the tags prove nothing. What a tracking server does
enforce is who may edit which experiment and which registered model.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import lru_cache
from typing import TYPE_CHECKING

from steps.config.root import Config
from steps.core import signatures
from steps.core.errors import ConfigError, StepError
from steps.core.redaction import redact
from steps.registry import artifact_places, reports
from steps.registry import evidence as evidence_module
from steps.registry.aliases import DIGEST_TAG, EVALUATION_TAG, EVIDENCE_TAG
from steps.registry.artifact_places import NOWHERE, Places
from steps.registry.client import (
    PermissionRefusedError,
    RegistryClient,
    ServerUnavailableError,
    Version,
)
from steps.registry.evidence import Evidence
from steps.registry.retries import first_line

if TYPE_CHECKING:
    from mlflow.entities import Run

log = logging.getLogger(__name__)

SIGNATURE = ".sig"  # of the file beside report.json that holds its detached signature
LARGEST_SIGNATURE = 1024  # bytes; one of these kinds has about a hundred
# bytes of a report from elsewhere; one of a thousand items has a few million
LARGEST_REPORT = 100_000_000
SIGNERS = "promotion.evidence.signers"
REPORT = re.compile(r"runs:/(?P<run>[^/]+)/report\.json")
OUTSIDE_TRIES = 2  # of reading one of them, where the server was away and is back
OUTSIDE_SECONDS = 2.0  # for which a call about a run of another experiment is repeated
_named: set[str] = set()  # runs that this process has said it ignores


@dataclass(frozen=True)
class Trust:
    """Where evidence counts from."""

    registry: RegistryClient
    experiments: frozenset[str]  # ids
    # the policy names them; else they are the running step's own and those of the versions' logged
    # models
    by_policy: bool
    signers: tuple[str, ...] = ()  # PEM files of public keys
    # where artifacts of runs of other experiments may lie, to be read at all
    places: Places = NOWHERE

    def against(self, report: Evidence) -> str:
        """Why a report does not count, in words; empty where it does.

        Raises:
            ConfigError: a key file of ``promotion.evidence.signers`` cannot be read.
        """
        found = REPORT.fullmatch(report.uri)
        if not found:
            return (
                f"{redact(report.uri)} is not an artifact of a run (runs:/<run>/report.json), so"
                " nobody knows who wrote it"
            )
        run: Run = self.registry.repeated(
            f"reading the run {found['run']!r}", lambda: self.registry.client.get_run(found["run"])
        )
        return (
            ""
            if run.info.experiment_id in self.experiments or self.signer(run, report)
            else self.words(run)
        )

    def words(self, run: Run) -> str:
        """Why the report of a run does not count, and what would make it count."""
        unsigned = f", and it is signed by none of {SIGNERS}" if self.signers else ""
        names = (
            ", ".join(
                sorted(
                    repr(reports.experiment_name(self.registry, place))
                    for place in self.experiments
                )
            )
            or "no experiment"
        )
        whose = (
            "promotion.evidence.experiments"
            if self.by_policy
            else "the experiments of this step and of the version's logged model"
        )
        name = reports.experiment_name(self.registry, run.info.experiment_id)
        return (
            f"run {run.info.run_id} is in experiment {name!r}, which does not count{unsigned};"
            f" evidence counts from {names} ({whose}): evaluate there, or name the experiment in"
            f" promotion.evidence.experiments, or sign the report by a key of {SIGNERS}"
        )

    def signature(self, run: Run) -> bytes | None:
        """The signature beside a run's report; None where there is none, or one of the files is of
        a size that neither ever has.
        """
        from mlflow.exceptions import MlflowException

        run_id, name = run.info.run_id, reports.REPORT_FILE + SIGNATURE
        if not self.signers or not (
            run.info.experiment_id in self.experiments or self.places.holds(run.info.artifact_uri)
        ):
            return None
        files = self.registry.repeated(
            f"listing the files of run {run_id!r}",
            lambda: self.registry.client.list_artifacts(run_id),
        )
        sizes = {each.path: each.file_size or 0 for each in files}
        if (
            name not in sizes
            or sizes[name] > LARGEST_SIGNATURE
            or sizes.get(reports.REPORT_FILE, 0) > LARGEST_REPORT
        ):
            return None
        try:
            return self.registry.text(f"runs:/{run_id}/{name}").encode()
        except (MlflowException, OSError):  # removed meanwhile, or no text
            return None

    def signer(self, run: Run, report: Evidence) -> str | None:
        """Name of the key of the policy that signed a report's bytes as they were read, if one
        did.
        """
        signature = self.signature(run)
        return (
            signatures.verify(report.text.encode(), signature, self.signers, field=SIGNERS)
            if signature
            else None
        )


@dataclass(frozen=True)
class Choice:
    """The report to go by, and what speaks against it."""

    evidence: Evidence | None
    trouble: str  # why there is none, or why the one that was named does not count


def trusted(registry: RegistryClient, config: Config, versions: Iterable[Version] = ()) -> Trust:
    """Where evidence about these versions counts from, by the policy."""
    from steps.pipeline import experiments

    settings = config.promotion.evidence
    signers = tuple(settings.signers)
    if settings.experiments:
        known = registry.repeated(
            "looking for the experiments",
            lambda: experiments.named(settings.experiments, registry.client),
        )
        for name in sorted({*settings.experiments} - {*known.values()}):
            _say(
                f"experiment {name}",
                f"promotion.evidence.experiments: there is no experiment {name!r} on this tracking"
                " server",
            )
        return Trust(registry, frozenset(known), True, signers, _places(registry, known, signers))
    ids = {experiments.own()}
    for version in versions:
        logged = registry.logged_model(version.model_id) if version.model_id else None
        if logged is not None:
            ids.add(str(logged.experiment_id))
    return Trust(registry, frozenset(ids), False, signers, _places(registry, ids, signers))


def _places(registry: RegistryClient, trusted_ids: Iterable[str], signers: Sequence[str]) -> Places:
    """Where the server itself and the trusted experiments keep artifacts; nothing is looked up
    where no signature could count.
    """
    from mlflow.tracking import get_tracking_uri

    def location(place: str) -> str:
        try:
            return str(
                registry.repeated(
                    "reading the experiment", lambda: registry.client.get_experiment(place)
                ).artifact_location
            )
        except PermissionRefusedError:
            return ""

    looked_up = sorted({artifact_places.DEFAULT_EXPERIMENT, *trusted_ids}) if signers else []
    locations = [found for place in looked_up if (found := location(place))]
    return Places.around(locations, get_tracking_uri())


def choose(registry: RegistryClient, version: Version, config: Config) -> Choice:
    """The report about a version that decides.

    The one that ``report_uri`` names; else the strongest of the one on the version's tags and the
    finished evaluations that judged the same logged model. Where the policy names no experiment,
    the report on the tags counts wherever it is from: whoever may write them may move the aliases
    too.

    Raises:
        StepError: ``report_uri`` names no report.
    """
    trust = trusted(registry, config, [version])
    if config.report_uri:
        report = evidence_module.read(config.report_uri, registry)
        return Choice(report, trust.against(report) or weaker(report, version, trust, config))
    tagged, trouble = recorded(version, trust)

    def about(report: Evidence) -> bool:
        return report.of(version.model_id, version.tags.get(DIGEST_TAG)) is not None

    return Choice(strongest(registry, version.name, config, trust, about, tagged), trouble)


def recorded(version: Version, trust: Trust) -> tuple[Evidence | None, str]:
    """The report on a version's tags, or why it does not count."""
    uri = version.tags.get(EVALUATION_TAG)
    if not uri:
        return None, "it has no evidence"
    try:
        report = evidence_module.read(uri, trust.registry)
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
    """That a version's recorded evidence still counts and is stronger than a report, in words;
    empty where it is not.
    """
    earlier = kept(report, version, trust, config)
    if earlier is None or not counts(report, config):
        return ""
    known = f"version {version.number} ({earlier.size}: {earlier.uri})"
    return (
        f"the report ({report.size}) is weaker than evidence that still counts, of {known};"
        " evaluate with at least as many items"
    )


def kept(report: Evidence, version: Version, trust: Trust, config: Config) -> Evidence | None:
    """The evidence on a version's tags that a report must not replace: it counts, and the report
    does not or is weaker.
    """
    if version.tags.get(EVIDENCE_TAG) == report.digest:
        return None
    earlier, _ = recorded(version, trust)
    if (
        earlier is None
        or not counts(earlier, config)
        or (counts(report, config) and earlier.strength <= report.strength)
    ):
        return None
    candidate = earlier.of(version.model_id, version.tags.get(DIGEST_TAG))
    return earlier if candidate and candidate.status == "evaluated" else None


def counts(report: Evidence, config: Config, now: datetime | None = None) -> bool:
    """Whether a report is of an age that counts, and judged by the gates of today."""
    return report.untimely(
        config.promotion.max_evidence_age_days, now
    ) is None and not report.other_gates(config.promotion.gates)


def best(reports: Sequence[Evidence], config: Config) -> Evidence | None:
    """The report that decides: one that counts before one that does not, then the stronger, then
    the newer.
    """
    now = datetime.now(UTC)
    return max(
        reports,
        key=lambda each: (counts(each, config, now), each.strength, each.created),
        default=None,
    )


def strongest(
    registry: RegistryClient,
    name: str,
    config: Config,
    trust: Trust,
    about: Callable[[Evidence], bool] = lambda _: True,
    tagged: Evidence | None = None,
) -> Evidence | None:
    """The report of a registered model that decides. A newer one that is passed over or does not
    count is named in the log, and why.

    Args:
        registry: the tracking server.
        name: registered model.
        config: the composed config; ``promotion`` counts.
        trust: where evidence counts from.
        about: which reports are looked for.
        tagged: one that is known already.
    """
    inside, outside = reports.finished(registry, name, trust.experiments, every=bool(trust.signers))
    found = [tagged] if tagged else []
    for run in inside:
        report = reports.read(registry, run)
        if report is not None and about(report) and all(report.uri != each.uri for each in found):
            found.append(report)
    ignored: list[Run] = []
    for run in outside:
        if tagged and tagged.uri == reports.uri_of(run):
            continue
        report = _signed(trust, run)
        if report is None:
            ignored.append(run)
        elif about(report):
            found.append(report)
    chosen = best(found, config)
    for run in ignored[: reports.REPORTS_READ]:
        if chosen is None or run.info.start_time > chosen.created.timestamp() * 1000:
            _say(
                run.info.run_id,
                f"{reports.uri_of(run)} about {name!r} is ignored: {trust.words(run)}",
            )
    for each in found:
        if (
            chosen is not None
            and each.created > chosen.created
            and each.untimely(config.promotion.max_evidence_age_days) is None
        ):
            why = (
                "judged by other gates"
                if each.strength >= chosen.strength
                else f"weaker ({each.size})"
            )
            _say(
                f"{each.uri} {chosen.uri}",
                f"{each.uri} about {name!r} is newer and {why} than {chosen.uri} ({chosen.size}),"
                " which decides",
            )
    return chosen


def _signed(trust: Trust, run: Run) -> Evidence | None:
    """The report of a run of another experiment, if a key of the policy signed it.

    Who made the run also chose where its files lie and what they are, so whatever fails here is
    about this run alone.

    Raises:
        ConfigError: a key file of ``promotion.evidence.signers`` cannot be read.
        ServerUnavailableError: the tracking server answers nothing else either.
    """
    quick = replace(trust, registry=_quick(trust.registry))
    trouble = ""
    for _ in range(OUTSIDE_TRIES):
        try:
            report = reports.read(quick.registry, run) if quick.signature(run) else None
            return report if report is not None and quick.signer(run, report) else None
        except ConfigError:
            raise
        except Exception as error:  # noqa: BLE001  (any store's client may raise anything over what a stranger's run holds)
            trouble = f"{type(error).__name__}: {first_line(error)}"
            if not isinstance(error, ServerUnavailableError):
                break
            trust.registry.repeated(
                "asking the server", lambda: trust.registry.client.get_run(run.info.run_id)
            )
    _say(run.info.run_id, f"{reports.uri_of(run)} is ignored: it cannot be read ({trouble})")
    return None


@lru_cache(maxsize=8)
def _quick(registry: RegistryClient) -> RegistryClient:
    return RegistryClient(min(registry.retry_seconds, OUTSIDE_SECONDS), registry.client)


def _say(key: str, words: str) -> None:
    if key not in _named:
        _named.add(key)
        log.warning("%s", redact(words))
