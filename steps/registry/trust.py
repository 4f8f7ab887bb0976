"""Where evidence counts from: experiments and keys that the policy names.

A run's tags and its ``report.json`` are written by whoever may edit its experiment, and every user
may have an experiment of his own; the names in the tags prove nothing. What a tracking server does
enforce is who may edit which experiment and which registered model.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from mlflow.entities import Run
from mlflow.exceptions import MlflowException
from mlflow.tracking import get_tracking_uri

from steps.config.promotion import PromotionConfig
from steps.core import signatures
from steps.core.redaction import redact
from steps.pipeline import experiments
from steps.registry import artifact_places, reports
from steps.registry.artifact_places import NOWHERE, Places
from steps.registry.client import PermissionRefusedError, RegistryClient
from steps.registry.evidence import Evidence
from steps.registry.model_version import Version

log = logging.getLogger(__name__)

SIGNATURE = ".sig"  # of the file beside report.json that holds its detached signature
LARGEST_SIGNATURE = 1024  # bytes; one of these kinds has about a hundred
# bytes of a report from elsewhere; one of a thousand items has a few million
LARGEST_REPORT = 100_000_000
SIGNERS = "promotion.evidence.signers"
REPORT = re.compile(r"runs:/(?P<run>[^/]+)/report\.json")
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
        match = REPORT.fullmatch(report.uri)
        if not match:
            return (
                f"{redact(report.uri)} is not an artifact of a run (runs:/<run>/report.json), so"
                " its author is not known"
            )
        run: Run = self.registry.repeated(
            f"reading the run {match['run']!r}", lambda: self.registry.client.get_run(match["run"])
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
        """The signature beside a run's report; None where it is missing or a file is too large."""
        run_id, name = run.info.run_id, reports.REPORT_FILE + SIGNATURE
        if not self.signers or not (
            run.info.experiment_id in self.experiments or self.places.holds(run.info.artifact_uri)
        ):
            return None
        files = self.registry.repeated(
            f"listing the files of run {run_id!r}",
            lambda: self.registry.client.list_artifacts(run_id),
        )
        sizes = {file.path: file.file_size or 0 for file in files}
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
        """Name of the policy's key that signed a report's bytes, if one did."""
        signature = self.signature(run)
        return (
            signatures.verify(report.text.encode(), signature, self.signers, field=SIGNERS)
            if signature
            else None
        )


def trusted(
    registry: RegistryClient, policy: PromotionConfig, versions: Iterable[Version] = ()
) -> Trust:
    """Where evidence about these versions counts from, by the policy."""
    settings = policy.evidence
    signers = tuple(settings.signers)
    if settings.experiments:
        known = registry.repeated(
            "looking for the experiments",
            lambda: experiments.named(settings.experiments, registry.client),
        )
        for name in sorted({*settings.experiments} - {*known.values()}):
            warn_once(
                f"experiment {name}",
                f"promotion.evidence.experiments: there is no experiment {name!r} on this tracking"
                " server",
            )
        return Trust(registry, frozenset(known), True, signers, _places(registry, known, signers))
    ids = {experiments.own()}
    for version in versions:
        logged = registry.logged_model(version.model_id)
        if logged is not None:
            ids.add(str(logged.experiment_id))
    return Trust(registry, frozenset(ids), False, signers, _places(registry, ids, signers))


def _places(registry: RegistryClient, trusted_ids: Iterable[str], signers: Sequence[str]) -> Places:
    """Where the server and the trusted experiments keep artifacts; for signatures alone."""

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
    locations = [address for place in looked_up if (address := location(place))]
    return Places.around(locations, get_tracking_uri())


def warn_once(key: str, words: str) -> None:
    """Log a warning that this process has not given about ``key`` yet."""
    if key not in _named:
        _named.add(key)
        log.warning("%s", redact(words))
