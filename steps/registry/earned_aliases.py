"""Which aliases a report earns, and why. Pure: what is, what the policy says, what follows."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from steps.config.promotion import PromotionConfig
from steps.core import tags
from steps.evaluation.ranking import Ranked, Ranking, advantages, rank, speed_in_doubt
from steps.evaluation.report import CandidateReport
from steps.registry import alias_plan
from steps.registry.aliases import VARIANTS, challenger_of
from steps.registry.evidence import Evidence
from steps.registry.model_version import Version


@dataclass(frozen=True)
class Decision:
    """Aliases that a report earns, and why."""

    aliases: Mapping[str, int | None]
    reason: str


def decide(
    report: Evidence,
    planned: Mapping[str, int],
    known: Sequence[Version],
    current: Mapping[str, int],
    policy: PromotionConfig,
    failed_canary: Collection[str] = (),
) -> Decision:
    """Aliases that the report earns, and why.

    Args:
        report: the evidence.
        planned: version number of each evaluated model by model id.
        known: versions in the registry.
        current: the aliases now.
        policy: gates, weights, and the alias that the winner gets.
        failed_canary: models that must not get an alias.

    Returns:
        Alias to version, for those that the report has something to say about; and one sentence.
    """
    if untimely := report.untimely(policy.max_evidence_age_days):
        return Decision({}, f"no alias moves, as the evidence {untimely}; evaluate again")
    if other := report.other_gates(policy.gates):
        return Decision(
            {}, f"no alias moves, as the report judged by other gates ({other}); evaluate again"
        )
    alias = policy.alias
    champion = current.get(alias)
    serving = next((version for version in known if version.number == champion), None)
    seen = report.of(serving.model_id, serving.tags.get(tags.DIGEST)) if serving else None
    by_id = {
        version.model_id: version.number for version in reversed(known) if version.model_id
    } | dict(planned)
    # also where another version of the same logged model has the lower number
    if seen and champion is not None:
        by_id[seen.model_id] = champion
    passing = [
        candidate
        for candidate in report.candidates
        if candidate.passes
        and candidate.model_id in by_id
        and candidate.model_id not in failed_canary
    ]
    wanted: dict[str, int | None] = {}
    looked_at = {
        by_id[candidate.model_id] for candidate in report.candidates if candidate.model_id in by_id
    }
    for variant in VARIANTS:
        numbers = [
            by_id[candidate.model_id] for candidate in passing if candidate.variant == variant
        ]
        now = current.get(variant)
        # a newer one that is there already stays, unless this report or its canary speaks against
        # it
        if numbers:
            wanted[variant] = max(
                [*numbers, now] if now is not None and now not in looked_at else numbers
            )
    if serving is not None and seen is None:
        again = (
            "evaluate again: `mlflow run . -e evaluate"
            " --env-manager local`, with evaluate.incumbent=true and"
            f" promotion.alias={alias}"
        )
        return Decision(
            wanted,
            f"@{alias} stays where it is, as the report did not see @{alias} (version {champion});"
            f" {again}",
        )
    eligible: dict[str, CandidateReport] = {candidate.model_id: candidate for candidate in passing}
    if seen and seen.status == "evaluated" and seen.model_id not in failed_canary:
        # the incumbent defends its place with its figures, also where it would not get in today
        eligible.setdefault(seen.model_id, seen)
    ranking = rank(list(eligible.values()), policy.weights)
    held = [
        _why_held(candidate, failed_canary)
        for candidate in report.candidates
        if candidate.model_id not in eligible
    ]
    if ranking.winner is None:
        return Decision(wanted, "no alias moves, as no candidate passed: " + "; ".join(held))
    if report.report.busy and speed_in_doubt(list(eligible.values()), policy.weights):
        return Decision(
            wanted,
            f"@{alias} stays where it is: profile {policy.profile} is undecided, as"
            f" {report.report.busy} while speed was measured, and another version would win with"
            " its times halved and the winner's doubled; evaluate again on a quiet machine:"
            " `mlflow run . -e evaluate --env-manager local`, then `-e register`, or raise"
            " evaluate.speed.max_other_load",
        )
    winner = by_id[ranking.winner.candidate.model_id]
    runner_up = by_id[ranking.runner_up.candidate.model_id] if ranking.runner_up else None
    wanted |= alias_plan.succeed(current, alias, winner, runner_up)
    broken = {by_id[model_id] for model_id in failed_canary if model_id in by_id}
    # the version that was beaten takes that place, but not when it does not even run
    if wanted.get(challenger_of(alias)) in broken:
        wanted[challenger_of(alias)] = None
    reason = _why_chosen(ranking, by_id, policy.profile)
    if report.report.busy and ranking.runner_up:
        reason += (
            f"; {report.report.busy} while speed was measured, and it would win with its times"
            " doubled, too"
        )
    if ranking.left_out:
        reason += f"; not compared, as figures are missing: {', '.join(ranking.left_out)}"
    if held:
        reason += f"; held: {'; '.join(held)}"
    return Decision(wanted, reason)


def _why_chosen(ranking: Ranking, by_id: Mapping[str, int], profile: str) -> str:
    """The winner, and what it has over each of the others."""
    first, *others = ranking.ranked

    def who(one: Ranked) -> str:
        return f"version {by_id[one.candidate.model_id]} ({one.candidate.variant})"

    if not others:
        return f"profile {profile} chose {who(first)}, the only one that may have the alias"
    return f"profile {profile} chose {who(first)} " + "; ".join(
        f"over {who(other)}: {advantages(first, other)}"
        + ("" if other.on_front else ", at least as good in everything")
        for other in others
    )


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
