"""Which report decides: of those that count, the strongest that is not too old."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import lru_cache

from mlflow.entities import Run

from steps.config.promotion import PromotionConfig
from steps.core import tags
from steps.core.errors import ConfigError, StepError
from steps.registry import evidence as evidence_module
from steps.registry import reports
from steps.registry.client import RegistryClient, ServerUnavailableError
from steps.registry.evidence import Evidence
from steps.registry.model_version import Version
from steps.registry.retries import first_line
from steps.registry.trust import Trust, trusted, warn_once

log = logging.getLogger(__name__)

OUTSIDE_TRIES = 2  # of reading one of them, where the server was away and is back
OUTSIDE_SECONDS = 2.0  # for which a call about a run of another experiment is repeated


@dataclass(frozen=True)
class Choice:
    """The report to go by, and what speaks against it."""

    evidence: Evidence | None
    trouble: str  # why there is none, or why the one that was named does not count


def choose(
    registry: RegistryClient,
    version: Version,
    policy: PromotionConfig,
    report_uri: str | None = None,
) -> Choice:
    """The report about a version that decides.

    The one that ``report_uri`` names; else the strongest of the one on the version's tags and the
    finished evaluations that judged the same logged model. Where the policy names no experiment,
    the report on the tags counts from any experiment: whoever may write them may move the aliases
    too. Its files must lie where the policy reads, since whoever makes a model of a free name
    writes its tags.

    Raises:
        StepError: ``report_uri`` names no report.
    """
    trust = trusted(registry, policy, [version])
    if report_uri:
        report = evidence_module.read(report_uri, registry, trust.places)
        return Choice(report, trust.against(report) or weaker(report, version, trust, policy))
    tagged, trouble = recorded(version, trust)

    def about(report: Evidence) -> bool:
        return report.of(version.model_id, version.tags.get(tags.DIGEST)) is not None

    return Choice(strongest(registry, version.name, policy, trust, about, tagged), trouble)


def recorded(version: Version, trust: Trust) -> tuple[Evidence | None, str]:
    """The report on a version's tags, or why it does not count."""
    uri = version.tags.get(tags.EVALUATION)
    if not uri:
        return None, "it has no evidence"
    try:
        run = evidence_module.run_of(uri, trust.registry)
        inside = run.info.experiment_id in trust.experiments
        # before anything of it is read
        if trust.by_policy and not inside and trust.signature(run) is None:
            return None, f"its recorded evidence {uri} does not count ({trust.words(run)})"
        report = evidence_module.of_run(run, trust.registry, trust.places)
    except ServerUnavailableError:
        raise
    except StepError as error:
        return None, f"its evidence cannot be read ({error})"
    if report.digest != version.tags.get(tags.EVIDENCE_DIGEST):
        return None, f"its evidence {uri} was changed after it was recorded"
    if trust.by_policy and (why := trust.against(report)):
        return None, f"its recorded evidence {uri} does not count ({why})"
    return report, ""


def weaker(report: Evidence, version: Version, trust: Trust, policy: PromotionConfig) -> str:
    """That a report is weaker than a version's recorded evidence, in words; empty if it is not."""
    earlier = kept(report, version, trust, policy)
    if earlier is None or not counts(report, policy):
        return ""
    known = f"version {version.number} ({earlier.size}: {earlier.uri})"
    return (
        f"the report ({report.size}) is weaker than evidence that still counts, of {known};"
        " evaluate with at least as many items"
    )


def kept(
    report: Evidence, version: Version, trust: Trust, policy: PromotionConfig
) -> Evidence | None:
    """The evidence on a version's tags that this report must not replace, as it weighs more."""
    if version.tags.get(tags.EVIDENCE_DIGEST) == report.digest:
        return None
    earlier, _ = recorded(version, trust)
    if (
        earlier is None
        or not counts(earlier, policy)
        or (counts(report, policy) and earlier.strength <= report.strength)
    ):
        return None
    candidate = earlier.of(version.model_id, version.tags.get(tags.DIGEST))
    return earlier if candidate and candidate.status == "evaluated" else None


def outweighs(report: Evidence, version: Version, trust: Trust, policy: PromotionConfig) -> bool:
    """Whether the evidence on a version's tags weighs more than a report, by whatever gates each
    was judged: what people read of a version in service is the strongest that is known.
    """
    earlier, _ = recorded(version, trust)
    if earlier is None or earlier.strength <= report.strength:
        return False
    candidate = earlier.of(version.model_id, version.tags.get(tags.DIGEST))
    timely = earlier.untimely(policy.max_evidence_age_days) is None
    return timely and candidate is not None and candidate.status == "evaluated"


def counts(report: Evidence, policy: PromotionConfig, now: datetime | None = None) -> bool:
    """Whether a report is of an age that counts, and judged by the gates of today."""
    return report.untimely(policy.max_evidence_age_days, now) is None and not report.other_gates(
        policy.gates
    )


def best(reports: Sequence[Evidence], policy: PromotionConfig) -> Evidence | None:
    """The report that decides: one that counts, then the strongest, then the newest."""
    now = datetime.now(UTC)
    return max(
        reports,
        key=lambda report: (counts(report, policy, now), report.strength, report.created),
        default=None,
    )


def strongest(
    registry: RegistryClient,
    name: str,
    policy: PromotionConfig,
    trust: Trust,
    about: Callable[[Evidence], bool] = lambda _: True,
    tagged: Evidence | None = None,
) -> Evidence | None:
    """The report of a registered model that decides. A newer one that is passed over or does not
    count is named in the log, and why.

    Args:
        registry: the tracking server.
        name: registered model.
        policy: how old a report may be, and by which gates.
        trust: where evidence counts from.
        about: which reports are looked for.
        tagged: one that is known already.
    """
    inside, outside = reports.finished(registry, name, trust.experiments, every=bool(trust.signers))
    known = [tagged] if tagged else []
    for run in inside:
        if not trust.places.holds(run.info.artifact_uri):
            words = trust.places.words(run.info.artifact_uri)
            warn_once(run.info.run_id, f"{reports.uri_of(run)} about {name!r} is ignored: {words}")
            continue
        report = reports.read(registry, run, trust.places)
        if report is not None and about(report) and all(report.uri != other.uri for other in known):
            known.append(report)
    ignored: list[Run] = []
    for run in outside:
        if tagged and tagged.uri == reports.uri_of(run):
            continue
        report = _signed(trust, run)
        if report is None:
            ignored.append(run)
        elif about(report):
            known.append(report)
    chosen = best(known, policy)
    for run in ignored[: reports.REPORTS_READ]:
        if chosen is None or run.info.start_time > chosen.created.timestamp() * 1000:
            warn_once(
                run.info.run_id,
                f"{reports.uri_of(run)} about {name!r} is ignored: {trust.words(run)}",
            )
    for other in known:
        if (
            chosen is not None
            and other.created > chosen.created
            and other.untimely(policy.max_evidence_age_days) is None
        ):
            why = (
                "judged by other gates"
                if other.strength >= chosen.strength
                else f"weaker ({other.size})"
            )
            warn_once(
                f"{other.uri} {chosen.uri}",
                f"{other.uri} about {name!r} is newer and {why} than {chosen.uri} ({chosen.size}),"
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
            signed = quick.signature(run) is not None
            report = reports.read(quick.registry, run, quick.places) if signed else None
            return report if report is not None and quick.signer(run, report) else None
        except ConfigError:
            raise
        except Exception as error:  # noqa: BLE001  (any store's client may raise anything over another user's files)
            trouble = f"{type(error).__name__}: {first_line(error)}"
            if not isinstance(error, ServerUnavailableError):
                break
            trust.registry.repeated(
                "asking the server", lambda: trust.registry.client.get_run(run.info.run_id)
            )
    warn_once(run.info.run_id, f"{reports.uri_of(run)} is ignored: it cannot be read ({trouble})")
    return None


@lru_cache(maxsize=8)
def _quick(registry: RegistryClient) -> RegistryClient:
    return RegistryClient(min(registry.retry_seconds, OUTSIDE_SECONDS), registry.client)
