"""From a report to versions and aliases."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from steps.config import names
from steps.config.root import Config
from steps.core.errors import StepError
from steps.core.redaction import redact
from steps.evaluation.report import CandidateReport
from steps.registry import (
    actors,
    alias_plan,
    canary,
    evidence_selection,
    permission,
    policy,
    result,
    versions,
)
from steps.registry import evidence as evidence_module
from steps.registry.alias_store import AliasStore
from steps.registry.aliases import DIGEST_TAG, VARIANTS, challenger_of
from steps.registry.client import RegistryClient, Version
from steps.registry.evidence import Evidence
from steps.registry.evidence_selection import Trust
from steps.registry.journal import Record, new_id
from steps.registry.result import ARTIFACT, Promotion, RefusedError, Row

__all__ = ["ARTIFACT", "Promotion", "Row", "decide", "register"]


@dataclass(frozen=True)
class Decision:
    """Aliases that a report earns, and why."""

    aliases: Mapping[str, int | None]
    reason: str


def register(
    report_uri: str,
    config: Config,
    *,
    dry_run: bool = False,
    registry: RegistryClient | None = None,
    kind: str = "register",
    reason: str | None = None,
) -> Promotion:
    """Register what a report judged, and move the aliases that it earned.

    Every evaluated model gets one version; ``transformers`` and ``onnx`` go to the newest version
    of each that passes its gates; the policy's winner gets the policy's alias, its runner-up the
    challenger's, and what the alias pointed at before becomes the previous one. Before an alias
    moves, its version passes the canary; one that does not is treated as held. A held candidate
    gets a version, for the record, and no alias. The same report again changes nothing. A report
    that did not see what the policy's alias points at today cannot move it, however good its winner
    is: no evaluation compared the two. Nor does one that is weaker than evidence of a version
    that still counts: it leaves that version's tags and card alone, and moves no alias.

    Args:
        report_uri: ``runs:/<run>/report.json``.
        config: the composed config; ``promotion`` and ``model`` count.
        dry_run: say what would change and change nothing; no canary is run.
        registry: the tracking server; the default follows the process's URIs.
        kind: of the record in the history.
        reason: of whoever asked, where somebody did.

    Raises:
        RefusedError: the report is from an experiment that the policy does not trust.
        StepError: no such report, nothing in it was evaluated, the bytes are not those judged, or
            the server refuses or does not answer.
        LostRaceError: another promoter moved an alias in between; no alias was moved here.
    """
    registry = registry or RegistryClient(config.promotion.retry_seconds)
    report = evidence_module.read(report_uri, registry)
    name = names.check(
        f"registered_name in {report_uri}",
        report.registered_name,
        "evaluate again: `mlflow run . -e evaluate`",
    )
    evaluated = [each for each in report.candidates if each.status == "evaluated"]
    if not evaluated:
        failures = (
            "; ".join(f"{each.uri}: {each.failure_reason}" for each in report.candidates)
            or "the report names no model"
        )
        raise StepError(
            f"{report_uri}: nothing to register, as no model was evaluated ({failures})"
        )
    before = registry.versions(name)
    trust = evidence_selection.trusted(registry, config, in_service(registry, name, before))
    if why := trust.against(report):
        raise RefusedError(f"report_uri={report_uri}: {redact(why)}")
    store = AliasStore(registry, name)
    found: dict[str, Version | None]
    kept = _kept(before, evaluated, report, trust, config)
    if dry_run:
        view = store.peek()
        found = {each.model_id: versions.find(registry, name, each.model_id) for each in evaluated}
        created = {model_id for model_id, version in found.items() if version is None}
    else:
        registry.ensure_model(name, describe(name, report, config), {})
        store.claim()
        served = store.read().served()
        weighed = [each for each in evaluated if each.model_id not in kept]
        made = {
            each.model_id: versions.register(registry, name, each, report, command(config), served)
            for each in weighed
        }
        found = {**kept, **{model_id: each.version for model_id, each in made.items()}}
        created = {model_id for model_id, each in made.items() if each.created}
        view = store.open()  # once there are versions: an entry points at one
    planned = _numbers(registry, name, evaluated, found)
    known = versions.without_twins(
        registry.versions(name), {*view.journal.served(), *view.aliases.values()}
    )
    weaker = "; ".join(
        filter(
            None, (evidence_selection.weaker(report, each, trust, config) for each in kept.values())
        )
    )
    canaries: dict[str, str] = {}  # model id to "passed" or what failed
    isolation_missing: tuple[str, ...] = ()
    while True:
        failed = {model_id for model_id, outcome in canaries.items() if outcome != "passed"}
        decision = (
            Decision({}, f"no alias moves: {weaker}")
            if weaker
            else decide(report, planned, known, view.aliases, config, failed)
        )
        moves = alias_plan.moves(view.aliases, decision.aliases)
        targets = {move.after for move in moves}
        waiting = [
            each
            for each in evaluated
            if planned[each.model_id] in targets and each.model_id not in canaries
        ]
        if dry_run or not waiting:
            break
        for each in waiting:
            outcome = canary.run(
                f"models:/{name}/{planned[each.model_id]}", each.digest, config.promotion.canary
            )
            canaries[each.model_id] = "passed" if outcome.passed else outcome.fault
            isolation_missing = outcome.missing or isolation_missing
    who = actors.who(registry)
    subject = (
        permission.planned_subject(report, planned, decision.aliases, view.aliases, config)
        if moves
        else None
    )
    withheld = permission.withhold(
        registry, store, view, decision.aliases, subject, who, replace(config, dry_run=dry_run)
    )
    moves = alias_plan.moves(view.aliases, withheld.aliases)
    why = "; ".join(
        filter(None, (reason and redact(reason), redact(decision.reason), withheld.words))
    )
    entry = None
    if moves and not dry_run:
        entry = store.commit(
            view,
            Record(
                id=new_id(),
                kind=kind,
                moves=moves,
                actor=who.name,
                authenticated=who.authenticated,
                reason=why,
                profile=config.promotion.profile,
                evidence=report.uri,
                evidence_digest=report.digest,
                run_id=result.active_run_id(),
                details={**withheld.details, **canary.recorded(isolation_missing)},
            ),
        )
    final = {**view.aliases, **withheld.aliases}
    promotion = Promotion(
        kind=kind,
        name=name,
        report_uri=report.uri,
        evidence_digest=report.digest,
        profile=config.promotion.profile,
        alias=config.promotion.alias,
        rows=tuple(
            result.row(
                name,
                each,
                planned[each.model_id],
                final,
                created=each.model_id in created,
                exists=found[each.model_id] is not None,
                canary=canaries.get(each.model_id, ""),
            )
            for each in evaluated
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


def decide(
    report: Evidence,
    planned: Mapping[str, int],
    known: Sequence[Version],
    current: Mapping[str, int],
    config: Config,
    failed_canary: Collection[str] = (),
) -> Decision:
    """Aliases that the report earns, and why.

    Args:
        report: the evidence.
        planned: version number of each evaluated model by model id.
        known: versions in the registry.
        current: the aliases now.
        config: the composed config.
        failed_canary: models that must not get an alias.

    Returns:
        Alias to version, for those that the report has something to say about; and one sentence.
    """
    if untimely := report.untimely(config.promotion.max_evidence_age_days):
        return Decision({}, f"no alias moves, as the evidence {untimely}; evaluate again")
    if other := report.other_gates(config.promotion.gates):
        return Decision(
            {}, f"no alias moves, as the report judged by other gates ({other}); evaluate again"
        )
    alias = config.promotion.alias
    champion = current.get(alias)
    serving = next((each for each in known if each.number == champion), None)
    seen = report.of(serving.model_id, serving.tags.get(DIGEST_TAG)) if serving else None
    by_id = {each.model_id: each.number for each in reversed(known) if each.model_id} | dict(
        planned
    )
    # also where another version of the same logged model has the lower number
    if seen and champion is not None:
        by_id[seen.model_id] = champion
    passing = [
        each
        for each in report.candidates
        if each.passes and each.model_id in by_id and each.model_id not in failed_canary
    ]
    wanted: dict[str, int | None] = {}
    looked_at = {by_id[each.model_id] for each in report.candidates if each.model_id in by_id}
    for variant in VARIANTS:
        numbers = [by_id[each.model_id] for each in passing if each.variant == variant]
        now = current.get(variant)
        # a newer one that is there already stays, unless this report or its canary speaks against
        # it
        if numbers:
            wanted[variant] = max(
                [*numbers, now] if now is not None and now not in looked_at else numbers
            )
    if serving is not None and seen is None:
        again = (
            "evaluate again: `mlflow run . -e evaluate`, with evaluate.incumbent=true and"
            f" promotion.alias={alias}"
        )
        return Decision(
            wanted,
            f"@{alias} stays where it is, as the report did not see @{alias} (version {champion});"
            f" {again}",
        )
    eligible: dict[str, CandidateReport] = {each.model_id: each for each in passing}
    if seen and seen.status == "evaluated" and seen.model_id not in failed_canary:
        # the incumbent defends its place with its figures, also where it would not get in today
        eligible.setdefault(seen.model_id, seen)
    ranking = policy.rank(list(eligible.values()), config.promotion.weights)
    held = [
        _why_held(each, failed_canary)
        for each in report.candidates
        if each.model_id not in eligible
    ]
    if ranking.winner is None:
        return Decision(wanted, "no alias moves, as no candidate passed: " + "; ".join(held))
    winner = by_id[ranking.winner.candidate.model_id]
    runner_up = by_id[ranking.runner_up.candidate.model_id] if ranking.runner_up else None
    wanted |= alias_plan.succeed(current, alias, winner, runner_up)
    broken = {by_id[model_id] for model_id in failed_canary if model_id in by_id}
    # the version that was beaten takes that place, but not when it does not even run
    if wanted.get(challenger_of(alias)) in broken:
        wanted[challenger_of(alias)] = None
    reason = f"profile {config.promotion.profile}: " + "; ".join(
        f"version {by_id[each.candidate.model_id]} ({each.candidate.variant})"
        f" {each.utility:+.3f}{'' if each.on_front else ', dominated'}"
        for each in ranking.ranked
    )
    if ranking.left_out:
        reason += f"; not compared, as figures are missing: {', '.join(ranking.left_out)}"
    if held:
        reason += f"; held: {'; '.join(held)}"
    return Decision(wanted, reason)


def in_service(registry: RegistryClient, name: str, known: Sequence[Version]) -> list[Version]:
    """Those of a model's versions that an alias points at: the experiments of their logged models
    are those of its own chain.
    """
    numbers = {*(registry.aliases(name) or {}).values()} if known else set()
    return [each for each in known if each.number in numbers]


def _kept(
    known: Sequence[Version],
    evaluated: Sequence[CandidateReport],
    report: Evidence,
    trust: Trust,
    config: Config,
) -> dict[str, Version]:
    """Versions of these models whose recorded evidence this report must not replace, by model
    id.
    """
    ids = {each.model_id for each in evaluated}
    first = {each.model_id: each for each in reversed(known) if each.model_id in ids}
    return {
        model_id: each
        for model_id, each in first.items()
        if model_id and evidence_selection.kept(report, each, trust, config)
    }


def describe(name: str, report: Evidence, config: Config) -> str:
    """Description of the registered model."""
    snapshot = report.report.snapshot or {}
    source = (
        snapshot.get("repo") or config.model.repo or config.model.homepage or "a local checkpoint"
    )
    licence = snapshot.get("licence") or config.model.licence or "not recorded"
    return (
        f"{name}: a small language model from {source}, licence {licence}. Versions are variants of"
        " the same weights behind one chat contract: `transformers` and `onnx` are the newest that"
        " passed of each, `champion` serves, `challenger` is the runner-up, `previous` is what a"
        f" rollback returns to. Every change of these aliases is an entry of `{name}.history`."
    )


def command(config: Config) -> str:
    """What makes the model again, from the project's folder."""
    from hydra.core.hydra_config import HydraConfig

    choice = (
        str(HydraConfig.get().runtime.choices.get("model"))
        if HydraConfig.initialized()
        else config.model.registered_name
    )
    return f"mlflow run . --env-manager local -P model={choice}"


def _why_held(candidate: CandidateReport, failed_canary: Collection[str]) -> str:
    who = f"{candidate.variant} {candidate.model_id}"
    if candidate.model_id in failed_canary:
        return f"{who} (canary)"
    if candidate.status != "evaluated":
        reason = (candidate.failure_reason or "").splitlines() or ["no reason given"]
        return f"{who} (could not be evaluated: {reason[0]})"
    gates = candidate.failed_gates
    failed = ", ".join(gate.name for gate in gates if gate.passed is False)
    open_ = ", ".join(gate.name for gate in gates if gate.passed is None)
    words = [
        f"failed {failed}" if failed else "",
        f"too little evidence for {open_}" if open_ else "",
    ]
    return (
        f"{who} ({'; '.join(filter(None, words)) or candidate.verdict.decision.replace('_', ' ')})"
    )


def _numbers(
    registry: RegistryClient,
    name: str,
    evaluated: Sequence[CandidateReport],
    found: Mapping[str, Version | None],
) -> dict[str, int]:
    """Version numbers, those a dry run would create counted on from the highest there is."""
    numbers: dict[str, int] = {}
    upcoming = max((each.number for each in registry.versions(name)), default=0)
    for each in evaluated:
        version = found[each.model_id]
        if version is None:
            upcoming += 1
        numbers[each.model_id] = version.number if version else upcoming
    return numbers
