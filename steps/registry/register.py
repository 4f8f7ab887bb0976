"""From a report to versions and aliases."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from steps.config.root import Config
from steps.pipeline.errors import StepError
from steps.registry import canary, outcome, policy, succession, versions
from steps.registry import evidence as evidence_module
from steps.registry.aliases import VARIANT_TAG, VARIANTS, VERDICT_TAG
from steps.registry.evidence import PROMOTE, Evidence, Judged
from steps.registry.gateway import Gateway, Version
from steps.registry.journal import Record, new_id
from steps.registry.ledger import Ledger
from steps.registry.outcome import ARTIFACT, Promotion, Row

__all__ = ["ARTIFACT", "Promotion", "Row", "decide", "register"]


@dataclass(frozen=True)
class Decision:
    """Aliases that a report earns, and why."""

    aliases: Mapping[str, int | None]
    reason: str


def register(report_uri: str, config: Config, *, dry_run: bool = False, gateway: Gateway | None = None) -> Promotion:
    """Register what a report judged, and move the aliases that it earned.

    Every evaluated model gets one version; ``transformers`` and ``onnx`` go to the newest version of each that passes its gates; the
    policy's winner gets the policy's alias, its runner-up the challenger's, and what the alias pointed at before becomes the
    previous one. Before an alias moves, its version passes the canary; one that does not is treated as held. A held candidate gets a
    version, for the record, and no alias. The same report again changes nothing.

    Args:
        report_uri: ``runs:/<run>/report.json``.
        config: the composed config; ``promotion`` and ``model`` count.
        dry_run: say what would change and change nothing; no canary is run.
        gateway: the tracking server; the default follows the process's URIs.

    Raises:
        StepError: no such report, nothing in it was evaluated, the bytes are not those judged, or the server refuses or does not answer.
        LostRaceError: another promoter moved an alias in between; no alias was moved here.
    """
    report = evidence_module.read(report_uri)
    name = report.registered_name
    gateway = gateway or Gateway(config.promotion.retry_seconds)
    evaluated = [each for each in report.judged if each.status == "evaluated"]
    if not evaluated:
        failures = "; ".join(f"{each.uri}: {each.failure}" for each in report.judged) or "the report names no model"
        raise StepError(f"{report_uri}: nothing to register, as no model was evaluated ({failures})")
    ledger = Ledger(gateway, name)
    found: dict[str, Version | None]
    if dry_run:
        view = ledger.peek()
        found = {each.model_id: versions.find(gateway, name, each.model_id) for each in evaluated}
        created = {model_id for model_id, version in found.items() if version is None}
    else:
        gateway.ensure_model(name, describe(name, report, config), {})
        view = ledger.open()
        made = {each.model_id: versions.register(gateway, name, each, report, command(config)) for each in evaluated}
        found = {model_id: each.version for model_id, each in made.items()}
        created = {model_id for model_id, each in made.items() if each.created}
    planned = _numbers(gateway, name, evaluated, found)
    known = versions.without_twins(gateway.versions(name))
    canaries: dict[str, str] = {}  # model id to "passed" or what failed
    while True:
        failed = {model_id for model_id, result in canaries.items() if result != "passed"}
        decision = decide(report, planned, known, view.aliases, config, failed)
        moves = succession.moves(view.aliases, decision.aliases)
        targets = {move.after for move in moves}
        waiting = [each for each in evaluated if planned[each.model_id] in targets and each.model_id not in canaries]
        if dry_run or not waiting:
            break
        for each in waiting:
            result = canary.run(f"models:/{name}/{planned[each.model_id]}", each.digest, config.promotion.canary)
            canaries[each.model_id] = "passed" if result.passed else result.fault
    entry = None
    if moves and not dry_run:
        entry = ledger.commit(
            view,
            Record(
                id=new_id(),
                kind="register",
                moves=moves,
                actor=outcome.actor(),
                reason=decision.reason,
                profile=config.promotion.profile,
                evidence=report.uri,
                evidence_digest=report.digest,
                run_id=outcome.active_run_id(),
            ),
        )
    final = {**view.aliases, **decision.aliases}
    promotion = Promotion(
        kind="register",
        name=name,
        report_uri=report.uri,
        evidence_digest=report.digest,
        profile=config.promotion.profile,
        alias=config.promotion.alias,
        rows=tuple(
            outcome.row(
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
        reason=decision.reason,
        entry=entry.number if entry else None,
        forced=False,
        dry_run=dry_run,
    )
    outcome.keep(promotion)
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
    limit = config.promotion.max_evidence_age_days
    if (age := report.age_days()) > limit:
        return Decision(
            {}, f"no alias moves, as the evidence is {age:.1f} days old (promotion.max_evidence_age_days={limit:g}); evaluate again"
        )
    by_id = {each.model_id: each.number for each in known if each.model_id} | dict(planned)
    passing = [each for each in report.judged if each.passes and each.model_id in by_id and each.model_id not in failed_canary]
    wanted: dict[str, int | None] = {}
    for variant in VARIANTS:
        numbers = [by_id[each.model_id] for each in passing if each.variant == variant]
        if numbers:
            older = [each.number for each in known if each.tags.get(VARIANT_TAG) == variant and each.tags.get(VERDICT_TAG) == PROMOTE]
            shut = {by_id[model_id] for model_id in failed_canary if model_id in by_id}
            wanted[variant] = max(number for number in (*numbers, *older) if number not in shut)
    alias = config.promotion.alias
    champion = current.get(alias)
    eligible: dict[str, Judged] = {each.model_id: each for each in passing}
    for each in report.judged:  # the incumbent defends its place with its figures, also where it would not get in today
        if each.status == "evaluated" and champion is not None and by_id.get(each.model_id) == champion:
            eligible.setdefault(each.model_id, each)
    ranking = policy.rank(list(eligible.values()), config.promotion.weights)
    held = [_why_held(each, failed_canary) for each in report.judged if each.model_id not in eligible]
    if ranking.winner is None:
        return Decision(wanted, "no alias moves, as no candidate passed: " + "; ".join(held))
    winner = by_id[ranking.winner.judged.model_id]
    runner_up = by_id[ranking.runner_up.judged.model_id] if ranking.runner_up else None
    wanted |= succession.succeed(current, alias, winner, runner_up)
    reason = f"profile {config.promotion.profile}: " + "; ".join(
        f"version {by_id[each.judged.model_id]} ({each.judged.variant}) {each.utility:+.3f}{'' if each.on_front else ', dominated'}"
        for each in ranking.ranked
    )
    if ranking.left_out:
        reason += f"; not compared, as figures are missing: {', '.join(ranking.left_out)}"
    if held:
        reason += f"; held: {'; '.join(held)}"
    return Decision(wanted, reason)


def describe(name: str, report: Evidence, config: Config) -> str:
    """Description of the registered model."""
    source = report.snapshot.get("repo") or config.model.repo or config.model.homepage or "a local checkpoint"
    licence = report.snapshot.get("licence") or config.model.licence or "not recorded"
    return (
        f"{name}: a small language model from {source}, licence {licence}. Versions are variants of the same weights behind one chat "
        "contract: `transformers` and `onnx` are the newest that passed of each, `champion` serves, `challenger` is the runner-up, "
        f"`previous` is what a rollback returns to. Every change of these aliases is an entry of `{name}.history`."
    )


def command(config: Config) -> str:
    """What makes the model again, from the project's folder."""
    from hydra.core.hydra_config import HydraConfig

    choice = str(HydraConfig.get().runtime.choices.get("model")) if HydraConfig.initialized() else config.model.registered_name
    return f"mlflow run . --env-manager local -P model={choice}"


def _why_held(judged: Judged, failed_canary: Collection[str]) -> str:
    if judged.model_id in failed_canary:
        return f"{judged.variant} {judged.model_id} (canary)"
    gates = ", ".join(gate.name for gate in judged.gates if gate.passed is not True)
    return f"{judged.variant} {judged.model_id} ({judged.failure or judged.decision}{': ' + gates if gates else ''})"


def _numbers(gateway: Gateway, name: str, evaluated: Sequence[Judged], found: Mapping[str, Version | None]) -> dict[str, int]:
    """Version numbers, those a dry run would create counted on from the highest there is."""
    numbers: dict[str, int] = {}
    upcoming = max((each.number for each in gateway.versions(name)), default=0)
    for each in evaluated:
        version = found[each.model_id]
        if version is None:
            upcoming += 1
        numbers[each.model_id] = version.number if version else upcoming
    return numbers
