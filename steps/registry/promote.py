"""Move an alias to a version that a person names, or that the policy chooses; and back."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from steps.config.root import Config
from steps.core.errors import ConfigError, StepError
from steps.core.redaction import redact
from steps.registry import (
    actors,
    alias_plan,
    canary,
    eligibility,
    evidence_selection,
    permission,
    protection,
    register,
    result,
    versions,
)
from steps.registry import target as targets
from steps.registry.actors import Actor
from steps.registry.alias_store import AliasStore, LostRaceError, View
from steps.registry.aliases import DIGEST_TAG, EVALUATION_TAG
from steps.registry.client import RegistryClient, Version
from steps.registry.eligibility import Assessment
from steps.registry.evidence import read as read_evidence
from steps.registry.journal import Record, new_id
from steps.registry.result import Promotion, RefusedError, WithdrawnError


def promote(
    config: Config,
    *,
    registry: RegistryClient | None = None,
    beaten: Mapping[str, int | None] | None = None,
    asked: str | None = None,
) -> Promotion:
    """Move ``alias`` (the policy's, ``champion``, unless the config says otherwise) to ``target``.

    A named version is checked: evidence about these bytes, not too old, a verdict that promotes,
    and the canary. Without a version, the
    strongest evaluation of the model that counts is registered (of equally strong ones the newest),
    and the policy chooses the winner. Promoting what is already there changes nothing.

    Args:
        config: ``target``, ``alias``, ``force``, ``reason``, ``dry_run``, ``report_uri`` and
            ``promotion`` count.
        registry: the tracking server; the default follows the process's URIs.
        beaten: alias to the version that the caller compared the target with; if it points
            elsewhere by now, the comparison is void.
        asked: alias by which somebody asked for the move; the default is the target's. If it does
            not point at the version any more once the canary is done, nothing moves.

    Raises:
        ConfigError: ``force`` without a reason or a version, or a target or alias of a wrong form.
        RefusedError: the policy, the evidence, the bytes, missing approvals or the canary do not
            allow it; no alias was moved.
        WithdrawnError: whoever asked for it has withdrawn or moved that alias meanwhile; no alias
            was moved.
        LostRaceError: another promoter moved the alias in between; no alias was moved here.
    """
    targets.check_force(config)
    alias = targets.alias_of(config)
    target = targets.parse(config.target, config)
    registry = registry or RegistryClient(config.promotion.retry_seconds)
    if target.version is None and target.alias is None:
        return _by_policy(registry, target.name, alias, config)
    # says clearly when there is none, before anything is written
    targets.version_of(registry, target)
    store = AliasStore(registry, target.name)
    # before the version is looked at: what moves from here on is a race
    view = store.peek() if config.dry_run else store.open()
    for compared, number in (beaten or {}).items():
        if view.aliases.get(compared) != number:
            raise LostRaceError(
                f"models:/{target.name}@{compared} moved since the versions were compared; nothing"
                " was changed"
            )
    version = targets.version_of(registry, target)
    if version is None:
        raise StepError(
            f"target={config.target}: it was there a moment ago, and is not now; run this again"
        )
    assessment = eligibility.assess(registry, version, config)
    if assessment.objections and not config.force:
        raise RefusedError(
            f"{version.uri} is not promoted to @{alias}: {'; '.join(assessment.objections)}. To"
            " overrule the policy: force=true reason='…'"
        )
    wanted = alias_plan.succeed(view.aliases, alias, version.number)
    who = actors.who(registry)
    reason = redact(config.reason or f"named by {who.shown}, passed its gates")
    details = {"objections": list(assessment.objections)} if assessment.objections else {}
    asked = asked or target.alias
    return _move(
        registry,
        store,
        view,
        assessment,
        wanted,
        config,
        who,
        kind="promote",
        alias=alias,
        reason=reason,
        details=details,
        asked=asked,
    )


def rollback(config: Config, *, registry: RegistryClient | None = None) -> Promotion:
    """Move ``target``'s alias back to its previous version, or with ``to`` to any version that it
    once pointed at.

    Args:
        config: ``target`` (``models:/<name>@<alias>``), ``to``, ``reason``, ``dry_run`` and
            ``promotion`` count.
        registry: the tracking server; the default follows the process's URIs.

    Raises:
        RefusedError: there is nothing to return to, the version never held the alias, or it fails
            the canary; no alias was moved.
        LostRaceError: another promoter moved the alias in between; no alias was moved here.
    """
    target = targets.to_roll_back(config)
    alias = target.alias or config.promotion.alias
    registry = registry or RegistryClient(config.promotion.retry_seconds)
    # says clearly where there is no such model; an alias that somebody deleted by hand can come
    # back
    targets.version_of(registry, targets.Target(target.name), usable=False)
    store = AliasStore(registry, target.name)
    view = store.peek() if config.dry_run else store.open()
    line = view.journal.held(alias)
    # @previous knows nothing of moves by hand
    before = next((each for each in reversed(line) if each != view.aliases.get(alias)), None)
    number = config.to if config.to is not None else before
    held = list(dict.fromkeys(line))
    if number is None:
        raise RefusedError(
            f"models:/{target.name}@{alias}: {_only(held, alias)}, so there is nothing to return"
            f" to{_earlier(view, store)}"
        )
    if number not in held:
        words = f"to={number}: version {number} never held this alias; these did: {held}"
        raise RefusedError(f"models:/{target.name}@{alias}: {words}{_earlier(view, store)}")
    version = targets.version_of(registry, targets.Target(target.name, number))
    if version is None:
        raise StepError(f"models:/{target.name}/{number}: no such version")
    assessment = _recorded(registry, version, config)
    wanted = alias_plan.succeed(view.aliases, alias, number)
    current = view.aliases.get(alias)
    said = f"back from version {current}" if current else f"@{alias} was deleted; set again"
    reason = redact(config.reason or said)
    who = actors.who(registry)
    return _move(
        registry,
        store,
        view,
        assessment,
        wanted,
        config,
        who,
        kind="rollback",
        alias=alias,
        reason=reason,
        details={},
    )


def _only(held: Sequence[int], alias: str) -> str:
    return (
        f"only one @{alias} so far, version {held[0]}"
        if held
        else f"the history knows no version that was @{alias}"
    )


def _earlier(view: View, store: AliasStore) -> str:
    """That some entries do not count, and why; empty where all do."""
    numbers = ", ".join(str(entry.number) for entry in view.journal.entries if entry.earlier)
    if not numbers:
        return ""
    return (
        f" (entries {numbers} of {store.history!r} are about an earlier registered model of this"
        " name, whose numbers do not count)"
    )


def _look_again(registry: RegistryClient, version: Version, alias: str, asked: str | None) -> None:
    """Right before the intent: whether somebody still asks for this version, and it still is the
    one that was judged.

    Raises:
        WithdrawnError: the alias by which it was asked for points elsewhere, or nowhere.
        RefusedError: the version was deleted, or is of another logged model or other bytes by now.
    """
    if asked is not None:
        now = (registry.aliases(version.name) or {}).get(asked)
        if now != version.number:
            became = "was withdrawn" if now is None else f"points at version {now} now"
            raise WithdrawnError(
                f"{version.uri} is not moved to @{alias}: @{asked} {became}, while it was looked"
                " at; nothing was changed"
            )
    found = registry.version(version.name, version.number)
    if found is None or _identity(found) != _identity(version):
        became = "was deleted" if found is None else "is of another logged model or other bytes"
        raise RefusedError(
            f"{version.uri} is not moved to @{alias}: it {became}, while it was looked at; nothing"
            " was changed"
        )


def _identity(version: Version) -> tuple[str | None, str, str | None]:
    return version.model_id, version.source, version.tags.get(DIGEST_TAG)


def _by_policy(registry: RegistryClient, name: str, alias: str, config: Config) -> Promotion:
    if config.force:
        raise ConfigError(
            "force",
            True,
            "a version to promote against the policy",
            f"pass target=models:/{name}/<version>",
        )
    uri = config.report_uri
    if not uri:
        trust = evidence_selection.trusted(
            registry, config, register.in_service(registry, name, registry.versions(name))
        )
        report = evidence_selection.strongest(
            registry, name, config, trust, lambda each: each.registered_name == name
        )
        if report is None:
            raise RefusedError(
                f"models:/{name}: there is no finished evaluation to choose by; make one: `mlflow"
                " run . -e evaluate`"
            )
        uri = report.uri
    about = read_evidence(uri, registry).registered_name
    if about != name:
        raise ConfigError(
            "report_uri",
            redact(uri),
            f"a report about {name}, not about {about}",
            f"pass target=models:/{about}",
        )
    chosen = dataclasses.replace(
        config, promotion=dataclasses.replace(config.promotion, alias=alias)
    )
    return register.register(
        uri, chosen, dry_run=config.dry_run, registry=registry, kind="promote", reason=config.reason
    )


def _recorded(registry: RegistryClient, version: Version, config: Config) -> Assessment:
    """A version to return to: it served before, so only its bytes count."""
    logged = registry.logged_model(version.model_id) if version.model_id else None
    digest = version.tags.get("slm.digest") or (logged.tags.get("slm.digest") if logged else None)
    if not digest:
        command = eligibility.evaluate_command(registry, version, config)
        raise RefusedError(
            f"{version.uri}: nobody recorded which bytes it has; evaluate it: {command}"
        )
    return Assessment(version, None, None, digest, ())


def _move(
    registry: RegistryClient,
    store: AliasStore,
    view: View,
    assessment: Assessment,
    wanted: Mapping[str, int | None],
    config: Config,
    who: Actor,
    *,
    kind: str,
    alias: str,
    reason: str,
    details: Mapping[str, object],
    asked: str | None = None,
) -> Promotion:
    version, report = assessment.version, assessment.evidence
    if mistaken := view.journal.mistaken(version.number, version.model_id, assessment.digest):
        raise RefusedError(
            f"{version.uri} is not moved to @{alias}: {mistaken} (of {store.history!r}). No reason"
            " overrules this."
        )
    moves = alias_plan.moves(view.aliases, wanted)
    forced = bool(assessment.objections)
    verdict, entry = "", None
    isolation_missing: tuple[str, ...] = ()
    protection.check_protected(moves, who, config)
    # a rollback must not wait
    subject = permission.subject_of(assessment, alias) if moves and kind == "promote" else None
    if subject:
        permission.require_approval(registry, store, view, version, subject, who, config)
    if moves and not config.dry_run:
        outcome = canary.run(version.uri, assessment.digest, config.promotion.canary)
        if not outcome.passed:
            raise RefusedError(
                f"{version.uri} is not moved to @{alias}: its canary failed ({outcome.fault}). No"
                " reason overrules this."
            )
        if subject:  # once more, as somebody may have rejected it while the canary ran
            details = {
                **details,
                **permission.require_approval(registry, store, view, version, subject, who, config),
            }
        verdict = "passed"
        isolation_missing = outcome.missing
        _look_again(registry, version, alias, asked)
        # what a reason overruled does not replace what is recorded
        forced_over = forced and EVALUATION_TAG in version.tags
        if (
            report
            and assessment.candidate
            and assessment.candidate.model_id == version.model_id
            and not forced_over
        ):
            versions.annotate(
                registry, version, assessment.candidate, report, register.command(config)
            )
        entry = store.commit(
            view,
            Record(
                id=new_id(),
                kind=kind,
                moves=moves,
                actor=who.name,
                authenticated=who.authenticated,
                reason=reason,
                forced=forced,
                profile=config.promotion.profile,
                evidence=report.uri if report else version.tags.get("slm.evaluation"),
                evidence_digest=(
                    report.digest if report else version.tags.get("slm.evidence_digest")
                ),
                run_id=result.active_run_id(),
                details={**details, **canary.recorded(isolation_missing)},
                identities={
                    str(version.number): {"model_id": version.model_id, "digest": assessment.digest}
                },
            ),
        )
    final = {**view.aliases, **wanted}
    row = (
        result.row(
            version.name,
            assessment.candidate,
            version.number,
            final,
            created=False,
            exists=True,
            canary=verdict,
        )
        if assessment.candidate
        else result.unjudged_row(version, final, verdict)
    )
    promotion = Promotion(
        kind=kind,
        name=version.name,
        report_uri=report.uri if report else None,
        evidence_digest=report.digest if report else None,
        profile=config.promotion.profile,
        alias=alias,
        rows=(row,),
        moves=moves,
        reason=reason if moves else f"@{alias} is at version {version.number} already",
        entry=entry.number if entry else None,
        entry_digest=entry.digest if entry else None,
        forced=forced,
        dry_run=config.dry_run,
        isolation_missing=isolation_missing,
    )
    result.keep(promotion)
    return promotion
