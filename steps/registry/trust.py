"""Where evidence counts from: experiments and keys that the policy names.

A run's tags and its ``report.json`` are written by whoever may edit its experiment, and every user
may have an experiment of his own; the names in the tags prove nothing. What a tracking server does
enforce is who may edit which experiment and which registered model.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from mlflow.entities import Run
from mlflow.exceptions import MlflowException
from mlflow.utils.file_utils import local_file_uri_to_path

from steps.config.promotion import PromotionConfig
from steps.core import digest, signatures
from steps.core.artifact_places import NOWHERE, Places, is_local
from steps.core.bounded_read import TooMuchError
from steps.core.errors import StepError
from steps.core.redaction import redact
from steps.pipeline import experiments
from steps.registry import reports
from steps.registry.client import RegistryClient
from steps.registry.evidence import LARGEST_REPORT, REPORT_FILE, Evidence, run_of
from steps.registry.model_version import Version
from steps.registry.retries import first_line

log = logging.getLogger(__name__)

SIGNATURE = ".sig"  # of the file beside report.json that holds its detached signature
LARGEST_SIGNATURE = 1024  # bytes; one of these kinds has about a hundred
SIGNERS = "promotion.evidence.signers"
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
    # where the artifacts of a run must lie, to be read at all
    places: Places = NOWHERE

    def against(self, report: Evidence) -> str:
        """Why a report does not count, in words; empty where it does.

        Raises:
            ConfigError: a key file of ``promotion.evidence.signers`` cannot be read.
        """
        run = run_of(report.uri, self.registry)
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
        """The signature beside a run's report; None where it is missing, a file is too large, or
        the files lie where nothing is read.
        """
        run_id, name = run.info.run_id, REPORT_FILE + SIGNATURE
        if not self.signers or not self.places.holds(run.info.artifact_uri):
            return None
        files = self.registry.repeated(
            f"listing the files of run {run_id!r}",
            lambda: self.registry.client.list_artifacts(run_id),
        )
        sizes = {file.path: file.file_size or 0 for file in files}
        if (
            name not in sizes
            or sizes[name] > LARGEST_SIGNATURE
            or sizes.get(REPORT_FILE, 0) > LARGEST_REPORT
        ):
            return None
        try:
            return self.registry.text(run, name, LARGEST_SIGNATURE).encode()
        except (MlflowException, OSError, UnicodeDecodeError, TooMuchError):
            # removed or grown meanwhile, or no text
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
        return Trust(registry, frozenset(known), True, signers, places(registry, policy))
    ids = {experiments.own()}
    for version in versions:
        logged = registry.logged_model(version.model_id)
        if logged is not None:
            ids.add(str(logged.experiment_id))
    return Trust(registry, frozenset(ids), False, signers, places(registry, policy))


def places(registry: RegistryClient, policy: PromotionConfig) -> Places:
    """Where reports are read from and models fetched from, by the policy."""
    return registry.repeated(
        "looking up where artifacts lie",
        lambda: experiments.places(policy.evidence.experiments, registry.client),
    )


def check_address(registry: RegistryClient, uri: str, policy: PromotionConfig) -> None:
    """Look where the files of a version lie, before anything follows the address.

    Raises:
        StepError: elsewhere than the policy reads, or there is no such version, or it holds links
            that lead out of its folder: a copy of it would not show them.
    """
    followed = places(registry, policy)
    try:
        address = registry.repeated(
            f"looking up the files of {uri}", lambda: followed.check(uri, registry.client)
        )
        if is_local(address):
            digest.files_of(Path(local_file_uri_to_path(address)), links_outside=False)
    except (MlflowException, OSError) as error:
        raise StepError(
            f"{uri}: its files cannot be found ({redact(first_line(error))}); log the model again"
        ) from error


def warn_once(key: str, words: str) -> None:
    """Log a warning that this process has not given about ``key`` yet."""
    if key not in _named:
        _named.add(key)
        log.warning("%s", redact(words))
