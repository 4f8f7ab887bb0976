"""What follows when a figure leaves its band: a tag, a notification, and by policy a rollback."""

import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from steps.config.monitor import FIGURES
from steps.config.notifications import DRIFTED as EVENT
from steps.config.root import Config
from steps.core import tags
from steps.core.redaction import redact
from steps.monitoring.drift import WITHIN
from steps.monitoring.result import Consequences, Monitoring
from steps.registry import notifications
from steps.registry.alias_store import AliasStore, LostRaceError
from steps.registry.approval_entries import ROLLBACK
from steps.registry.client import PermissionRefusedError, RegistryClient
from steps.registry.journal import Journal
from steps.registry.model_version import Version
from steps.registry.result import RefusedError
from steps.registry.rollback import rollback

log = logging.getLogger(__name__)

MONITORED = "monitor"  # key of the findings among an entry's details
LONGEST_TAG = 1000  # characters
NONE = "none"  # value of the tag MONITOR_FIGURES where no figure is out; MLflow keeps no empty one


def follow(
    found: Monitoring, version: Version, config: Config, registry: RegistryClient
) -> Consequences:
    """Tag the version, notify, and roll back where the config says so.

    A figure that was out stays out until a period shows it within its band: too few requests, or an
    interval that crosses the band's end, show nothing. A notification follows only a figure that
    was not out before, and one finding (these bytes, this figure) is followed by one rollback at
    most, by whatever run.

    Args:
        found: of the period.
        version: that it is about, as it is tagged now.
        config: ``monitor``, ``promotion``, ``notifications`` and ``dry_run`` count.
        registry: the calls to the tracking server.

    Raises:
        ServerUnavailableError: the tracking server does not answer.
    """
    before = _out(version)
    drifted = {figure.name for figure in found.drifted}
    back = {figure.name for figure in found.figures if figure.state == WITHIN} & before
    out = (before - back) | drifted
    consequences = Consequences(_sorted(out), _sorted(drifted - before), _sorted(back))
    if drifted or back:
        words = _words(found, consequences)
        consequences = replace(consequences, tag=words)
        if not config.dry_run:
            _tag(registry, version, words, consequences.out)
    if consequences.new:
        reason = "; ".join(figure.words for figure in found.drifted)
        notifications.notify(
            config,
            EVENT,
            version.name,
            version=version.number,
            reason=reason,
            alias=found.alias,
            evidence=found.evidence.uri,
            evidence_digest=found.evidence.digest,
        )
        sent = config.notifications
        told = sent.url is not None and EVENT in sent.events and not config.dry_run
        consequences = replace(consequences, notified=told)
    if drifted and config.monitor.rollback:
        said, entry = _roll_back(found, version, config, registry)
        log.warning("%s: %s", version.uri, said)
        consequences = replace(consequences, rollback=said, entry=entry)
    return consequences


def _words(found: Monitoring, followed: Consequences) -> str:
    """The tag: the day, what is out, what is back."""
    parts = [figure.words for figure in found.drifted]
    earlier = [name for name in followed.out if name not in {one.name for one in found.drifted}]
    labels = {figure.name: figure.label for figure in found.figures}
    if earlier:
        names = ", ".join(labels.get(name, name) for name in earlier)
        parts.append(f"{names} out of band by an earlier look, and nothing shows it is back")
    if followed.back:
        names = ", ".join(labels.get(name, name) for name in followed.back)
        parts.append(f"{names} within the band again")
    return redact(f"{found.created[:10]}: {'; '.join(parts)}")[:LONGEST_TAG]


def _tag(registry: RegistryClient, version: Version, words: str, out: Sequence[str]) -> None:
    try:
        registry.set_version_tag(version.name, version.number, tags.MONITOR, words)
        names = ",".join(out) or NONE
        registry.set_version_tag(version.name, version.number, tags.MONITOR_FIGURES, names)
    except PermissionRefusedError as error:
        log.warning("%s could not be tagged: %s", version.uri, redact(str(error)))


def _roll_back(
    found: Monitoring, version: Version, config: Config, registry: RegistryClient
) -> tuple[str, int | None]:
    """What became of the alias, in words, and the entry in the history."""
    causes = [figure for figure in found.drifted if figure.name in config.monitor.rollback_on]
    if not causes:
        return "none: monitor.rollback_on has none of the figures that drifted", None
    if found.alias is None:
        return "none: target names a version, not an alias that could be moved", None
    alias = found.alias
    history = AliasStore(registry, version.name).peek()
    now = history.aliases.get(alias)
    if now != version.number:
        return f"none: @{alias} points at version {now} by now", None
    findings = {f"{found.digest} {figure.name}" for figure in causes}
    if (number := _followed_before(history, findings)) is not None:
        return f"none: entry {number} rolled back for the same finding already", None
    to = _before(registry, history, version, alias)
    if to is None:
        return f"none: no version had @{alias} before that is within its own bands", None
    reason = f"monitor: {'; '.join(figure.words for figure in causes)}"
    if config.dry_run:
        return f"@{alias} would move back to version {to}", None
    details: dict[str, Any] = {
        MONITORED: {
            "findings": sorted(findings),
            "figures": {figure.name: [figure.tested, figure.low, figure.high] for figure in causes},
            "evidence": found.evidence.uri,
        }
    }
    try:
        done = notifications.announced(
            config,
            lambda: rollback(
                registry,
                version.name,
                replace(config.promotion, alias=alias),
                to=to,
                reason=reason,
                only_from=version.number,
                details=details,
            ),
        )
    except (RefusedError, LostRaceError) as error:
        return f"none: {redact(str(error))}", None
    return f"@{alias} moved back to version {to}, entry {done.entry}", done.entry


def _followed_before(history: Journal, findings: set[str]) -> int | None:
    """Number of the entry by which all of these findings were followed already."""
    left, last = set(findings), None
    for entry in history.entries:
        record = entry.record
        if not entry.holds or entry.altered or record.kind != ROLLBACK:
            continue
        known = record.details.get(MONITORED)
        named = known.get("findings") if isinstance(known, dict) else None
        met = left & {str(one) for one in named} if isinstance(named, list) else set()
        if met:
            left, last = left - met, entry.number
    return last if not left else None


def _before(registry: RegistryClient, history: Journal, version: Version, alias: str) -> int | None:
    """The newest version that had the alias before and is not out of its own bands: two versions
    on a slow machine are not rolled back to each other.
    """
    for number in dict.fromkeys(reversed(history.held(alias))):
        if number == version.number:
            continue
        other = registry.version(version.name, number)
        if other is not None and not _out(other):
            return number
    return None


def _out(version: Version) -> set[str]:
    """Figures that an earlier look found out of their bands, and none since found back."""
    named = version.tags.get(tags.MONITOR_FIGURES, NONE)
    return {name for name in named.split(",") if name in FIGURES}


def _sorted(names: set[str]) -> tuple[str, ...]:
    """In the order of the config."""
    return tuple(sorted(names, key=FIGURES.index))
