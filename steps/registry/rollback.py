"""Move an alias back to the version before, or to any version that it once pointed at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from steps.config.promotion import PromotionConfig
from steps.core import did_you_mean, tags
from steps.core.errors import StepError
from steps.core.redaction import redact
from steps.registry import actors, alias_plan, eligibility, permission
from steps.registry import target as targets
from steps.registry.alias_store import AliasStore
from steps.registry.approval_entries import ROLLBACK
from steps.registry.client import RegistryClient
from steps.registry.eligibility import Assessment
from steps.registry.journal import Journal
from steps.registry.model_version import Version
from steps.registry.move import Reason, move
from steps.registry.result import Promotion, RefusedError
from steps.registry.target import Target


def rollback(
    registry: RegistryClient,
    name: str,
    policy: PromotionConfig,
    *,
    to: int | None = None,
    reason: str | None = None,
    force: bool = False,
    dry_run: bool = False,
    only_from: int | None = None,
    details: Mapping[str, Any] | None = None,
) -> Promotion:
    """Move the policy's alias back.

    Args:
        registry: the tracking server.
        name: the registered model.
        policy: its alias moves; its canary must pass.
        to: a version that the alias once pointed at; the default is the one before.
        reason: why, for the history; ``force`` needs one.
        force: overrule a rejection of the version that the alias would return to.
        dry_run: say what would change and change nothing.
        only_from: version that the alias must be at; the default is any.
        details: more for the history's entry.

    Raises:
        ConfigError: ``force`` without a reason.
        RefusedError: the alias is not at ``only_from``, there is nothing to return to, the version
            never held the alias, an approver rejected it meanwhile, or it fails the canary; no
            alias was moved.
        LostRaceError: another promoter moved the alias in between; no alias was moved here.
    """
    targets.check_force(force, reason)
    alias = policy.alias
    # says clearly where there is no such model; an alias that somebody deleted by hand can come
    # back
    targets.version_of(registry, Target(name), usable=False)
    store = AliasStore(registry, name)
    history = store.peek() if dry_run else store.open()
    current, line = history.aliases.get(alias), history.held(alias)
    held = list(dict.fromkeys(line))
    if only_from is not None and current != only_from:
        raise RefusedError(
            f"models:/{name}@{alias}: it points at version {current} now, not at {only_from};"
            " nothing was changed"
        )
    if to is None:
        # @previous does not know of moves by other clients
        to = next((number for number in reversed(line) if number != current), None)
        if to is None:
            raise RefusedError(
                f"models:/{name}@{alias}: {_only(held, alias, history)}, so there is nothing to"
                f" return to{_earlier(history, store)}"
            )
    elif to not in held:
        raise RefusedError(
            f"models:/{name}@{alias}: to={to}: version {to} never held this alias; these did:"
            f" {held}{_earlier(history, store)}"
        )
    version = targets.version_of(registry, Target(name, to))
    if version is None:
        raise StepError(f"models:/{name}/{to}: no such version")
    assessment = _recorded(registry, version, alias)
    rejected = permission.rejection(store, history, assessment, policy, dry_run=dry_run)
    if rejected and not force:
        others = [number for number in held if number not in (current, to)]
        way = f"Return to another that had it, to=… of {others}" if others else "No other had it"
        raise RefusedError(
            f"{version.uri} is not moved back to @{alias}: {rejected}; nothing was changed."
            f" {way}, or overrule the rejection: force=true reason='…'"
        )
    said = f"back from version {current}" if current else f"@{alias} was deleted; set again"
    return move(
        store,
        history,
        replace(assessment, objections=(rejected,)) if rejected else assessment,
        alias_plan.succeed(history.aliases, alias, to),
        policy,
        actors.who(registry),
        Reason(
            ROLLBACK,
            redact(reason or said),
            {**(details or {}), **({"objections": [rejected]} if rejected else {})},
        ),
        dry_run=dry_run,
    )


def _recorded(registry: RegistryClient, version: Version, alias: str) -> Assessment:
    """A version to return to: it served before, so only its bytes count."""
    digest = version.tags.get(tags.DIGEST) or registry.tags_of_logged(version).get(tags.DIGEST)
    if not digest:
        command = eligibility.evaluate_command(registry, version, alias)
        raise RefusedError(
            f"{version.uri}: it is not recorded which bytes it has; evaluate it: {command}"
        )
    return Assessment(version, None, None, digest, ())


def _only(held: Sequence[int], alias: str, history: Journal) -> str:
    if held:
        return f"only one @{alias} so far, version {held[0]}"
    said = f"the history knows no version that was @{alias}"
    known = sorted(history.aliases)
    if not known:
        return said
    return f"{said}; {did_you_mean.hint(alias, known) or 'there are: ' + ', '.join(known)}"


def _earlier(history: Journal, store: AliasStore) -> str:
    """That some entries do not count, and why; empty where all do."""
    numbers = ", ".join(str(entry.number) for entry in history.entries if entry.earlier)
    if not numbers:
        return ""
    return (
        f" (entries {numbers} of {store.history!r} are about an earlier registered model of this"
        " name, whose numbers do not count)"
    )
