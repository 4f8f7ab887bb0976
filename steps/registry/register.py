"""From a report to versions and aliases."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import count

from steps.config import names
from steps.config.model import ModelConfig
from steps.config.promotion import PromotionConfig
from steps.core.errors import StepError
from steps.core.redaction import redact
from steps.evaluation.report import CandidateReport
from steps.registry import (
    actors,
    alias_plan,
    canary,
    evidence,
    evidence_selection,
    permission,
    proposals,
    protection,
    result,
    trust,
    versions,
)
from steps.registry.alias_store import AliasStore
from steps.registry.client import RegistryClient
from steps.registry.earned_aliases import Decision, decide
from steps.registry.evidence import Evidence
from steps.registry.journal import Journal
from steps.registry.model_version import Version
from steps.registry.record import Record, new_id
from steps.registry.result import Promotion, RefusedError


def register(
    registry: RegistryClient,
    report_uri: str,
    policy: PromotionConfig,
    model: ModelConfig,
    *,
    dry_run: bool = False,
    kind: str = "register",
    reason: str | None = None,
    overrides: Sequence[str] = (),
) -> Promotion:
    """Register what a report is about, and move the aliases that it earned.

    Every evaluated model gets one version; ``transformers`` and ``onnx`` go to the newest version
    of each that passes its gates; the policy's winner gets the policy's alias, its runner-up the
    challenger's, and what the alias pointed at before becomes the previous one. Before an alias
    moves, its version passes the canary; one that does not is treated as held. A held candidate
    gets a version, for the record, and no alias. The same report again changes nothing. A report
    that did not see what the policy's alias points at today cannot move it, however good its winner
    is: no evaluation compared the two. Nor does one that is weaker than evidence of a version that
    still counts: it leaves that version's tags and card alone, and moves no alias. Judged by other
    gates, it moves the aliases of its own policy, and leaves tags and cards of versions in service
    alone.

    Args:
        registry: the tracking server.
        report_uri: ``runs:/<run>/report.json``.
        policy: what must hold, and the alias that the winner gets.
        model: says where the weights come from, where the report does not.
        dry_run: say what would change and change nothing; no canary is run.
        kind: of the record in the history.
        reason: of whoever asked, where somebody did.
        overrides: of this run, for the commands that messages and cards show.

    Raises:
        RefusedError: the report is from an experiment that the policy does not trust.
        StepError: no such report, nothing in it was evaluated, the bytes are not those evaluated,
            or the server refuses or does not answer.
        LostRaceError: another promoter moved an alias in between; no alias was moved here.
    """
    report = evidence.read(report_uri, registry, trust.places(registry, policy))
    name = names.check(
        f"registered_name in {report_uri}",
        report.registered_name,
        "evaluate again: `mlflow run . -e evaluate --env-manager local`",
    )
    evaluated = _evaluated(report)
    before = registry.versions(name)
    serving = in_service(registry, name, before)
    trusted = trust.trusted(registry, policy, serving)
    if why := trusted.against(report):
        raise RefusedError(f"report_uri={report_uri}: {redact(why)}")
    if policy.protected:
        protection.check_names(registry, policy, registry.aliases(name) or {})
    store = AliasStore(registry, name)
    kept = {
        candidate.model_id: version
        for candidate in evaluated
        if (version := _first_of(candidate.model_id, before))
        and evidence_selection.kept(report, version, trusted, policy)
    }
    unchanged = kept | {
        candidate.model_id: version
        for candidate in evaluated
        if (version := _first_of(candidate.model_id, serving))
        and evidence_selection.outweighs(report, version, trusted, policy)
    }
    there: dict[str, Version | None]
    if dry_run:
        history = store.peek()
        there = {one.model_id: _first_of(one.model_id, before) for one in evaluated}
        created = {model_id for model_id, version in there.items() if version is None}
    else:
        registry.ensure_model(name, describe(name, report, model), {})
        store.claim()
        served = store.read().served()
        made = {
            candidate.model_id: versions.register(
                registry, name, candidate, report, versions.command(overrides), served
            )
            for candidate in evaluated
            if candidate.model_id not in unchanged
        }
        there = {**unchanged, **{model_id: one.version for model_id, one in made.items()}}
        created = {model_id for model_id, one in made.items() if one.created}
        history = store.open()  # once there are versions: an entry points at one
    planned = _numbers(registry, name, there)
    weaker = [evidence_selection.weaker(report, one, trusted, policy) for one in kept.values()]
    decision, canaries = _decide(
        registry, report, planned, history, policy, "; ".join(filter(None, weaker)), dry_run
    )
    who = actors.who(registry)
    withheld = permission.withhold(
        store,
        history,
        decision.aliases,
        proposals.planned_subject(report, planned, decision.aliases, history.aliases, policy.alias),
        who,
        policy,
        overrides=overrides,
        dry_run=dry_run,
    )
    moves = alias_plan.moves(history.aliases, withheld.aliases)
    why = "; ".join(
        filter(None, (reason and redact(reason), redact(decision.reason), withheld.words))
    )
    isolation_missing = next((one.missing for one in canaries.values() if one.missing), ())
    entry = None
    if moves and not dry_run:
        entry = store.commit(
            history,
            Record(
                id=new_id(),
                kind=kind,
                moves=moves,
                actor=who.name,
                authenticated=who.authenticated,
                reason=why,
                profile=policy.profile,
                evidence=report.uri,
                evidence_digest=report.digest,
                run_id=result.active_run_id(),
                details={**withheld.details, **canary.recorded(isolation_missing)},
            ),
        )
    final = {**history.aliases, **withheld.aliases}
    promotion = Promotion(
        kind=kind,
        name=name,
        report_uri=report.uri,
        evidence_digest=report.digest,
        profile=policy.profile,
        alias=policy.alias,
        rows=tuple(
            result.row(
                name,
                candidate,
                planned[candidate.model_id],
                final,
                created=candidate.model_id in created,
                exists=there[candidate.model_id] is not None,
                canary=_words(canaries.get(candidate.model_id)),
            )
            for candidate in evaluated
        ),
        moves=moves,
        reason=why,
        entry=entry.number if entry else None,
        entry_digest=entry.digest if entry else None,
        forced=False,
        dry_run=dry_run,
        isolation_missing=isolation_missing,
        waiting=withheld.waiting,
    )
    result.keep(promotion)
    return promotion


def in_service(registry: RegistryClient, name: str, known: Sequence[Version]) -> list[Version]:
    """Versions that an alias points at: evidence counts from their logged models' experiments."""
    numbers = {*(registry.aliases(name) or {}).values()} if known else set()
    return [version for version in known if version.number in numbers]


def describe(name: str, report: Evidence, model: ModelConfig) -> str:
    """Description of the registered model."""
    snapshot = report.report.snapshot or {}
    source = snapshot.get("repo") or model.repo or model.homepage or "a local checkpoint"
    licence = snapshot.get("licence") or model.licence or "not recorded"
    return (
        f"{name}: a small language model from {source}, licence {licence}. Versions are variants of"
        " the same weights behind one chat contract: `transformers` and `onnx` are the newest that"
        " passed of each, `champion` serves, `challenger` is the runner-up, `previous` is what a"
        f" rollback returns to. Every change of these aliases is an entry of `{name}.history`."
    )


def _evaluated(report: Evidence) -> list[CandidateReport]:
    evaluated = [candidate for candidate in report.candidates if candidate.status == "evaluated"]
    if evaluated:
        return evaluated
    failures = (
        "; ".join(f"{candidate.uri}: {candidate.failure_reason}" for candidate in report.candidates)
        or "the report names no model"
    )
    raise StepError(f"{report.uri}: nothing to register, as no model was evaluated ({failures})")


def _first_of(model_id: str, known: Sequence[Version]) -> Version | None:
    return next((version for version in known if version.model_id == model_id), None)


def _numbers(
    registry: RegistryClient, name: str, there: Mapping[str, Version | None]
) -> dict[str, int]:
    """Version number by model id; a dry run counts on from the highest there is."""
    upcoming = count(1 + max((version.number for version in registry.versions(name)), default=0))
    return {
        model_id: version.number if version else next(upcoming)
        for model_id, version in there.items()
    }


def _decide(
    registry: RegistryClient,
    report: Evidence,
    planned: Mapping[str, int],
    history: Journal,
    policy: PromotionConfig,
    weaker: str,
    dry_run: bool,
) -> tuple[Decision, dict[str, canary.Canary]]:
    """What the report earns, once the canaries of the versions that would move have passed."""
    name = report.registered_name
    known = versions.without_twins(
        registry.versions(name), {*history.served(), *history.aliases.values()}
    )
    canaries: dict[str, canary.Canary] = {}
    while True:
        failed = {model_id for model_id, tried in canaries.items() if not tried.passed}
        decision = (
            Decision({}, f"no alias moves: {weaker}")
            if weaker
            else decide(report, planned, known, history.aliases, policy, failed)
        )
        moved_to = {move.after for move in alias_plan.moves(history.aliases, decision.aliases)}
        untried = [
            candidate
            for candidate in report.candidates
            if planned.get(candidate.model_id) in moved_to - {None}
            and candidate.model_id not in canaries
        ]
        if dry_run or not untried:
            return decision, canaries
        for candidate in untried:
            uri = f"models:/{name}/{planned[candidate.model_id]}"
            trust.check_address(registry, uri, policy)
            canaries[candidate.model_id] = canary.run(uri, candidate.digest, policy.canary)


def _words(tried: canary.Canary | None) -> str:
    if tried is None:
        return ""
    return "passed" if tried.passed else tried.fault
