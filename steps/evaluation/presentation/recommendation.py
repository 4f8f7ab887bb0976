"""The first sentence of a report: which version to use, and why."""

from collections.abc import Sequence
from dataclasses import dataclass

from steps.config.promotion import PromotionConfig
from steps.evaluation import metrics, statistics
from steps.evaluation.presentation.labels import labels
from steps.evaluation.ranking import rank, speed_in_doubt
from steps.evaluation.report import INSUFFICIENT, CandidateReport, Report

SIGNIFICANT = 0.05  # p-value of the sign test below which two qualities are told apart
SAME_SPEED = 1.05  # ratio up to which two speeds are called the same


@dataclass(frozen=True)
class Recommendation:
    """Which candidate to use, by its index; None where none passed or nothing is decided."""

    sentence: str
    index: int | None = None


def recommend(report: Report, policy: PromotionConfig) -> Recommendation:
    """What the policy's profile makes of a report. An incumbent defends its place with its figures,
    also where it would not get in today.
    """
    names = dict(zip(map(id, report.candidates), labels(report), strict=True))
    passing = [one for one in report.candidates if one.passes]
    eligible = [
        one
        for one in report.candidates
        if one.passes or (one.role == "incumbent" and one.status == "evaluated")
    ]
    others = [one for one in report.candidates if one not in eligible]
    failed = _failed(others, names)
    if not eligible:
        undecided = any(one.verdict.decision == INSUFFICIENT for one in others)
        return Recommendation(
            f"Undecided: no version has enough evidence. {failed}"
            if undecided
            else f"Use none of these versions: none passed its gates. {failed}"
        )
    if report.busy and speed_in_doubt(eligible, policy.weights):
        who = " and ".join(names[id(one)] for one in eligible)
        return Recommendation(
            f"Undecided between {who}: {report.busy} while speed was measured, and speed is what"
            f" the profile {policy.profile} would choose by. Evaluate again on a quiet machine, or"
            " raise evaluate.speed.max_other_load."
            f" {failed}".rstrip()
        )
    first, *rest = (one.candidate for one in rank(eligible, policy.weights).ranked)
    name = names[id(first)]
    verb = "Keep" if first.role == "incumbent" else "Use"
    if rest:
        why = f"{_compared(first, rest[0], names[id(rest[0])], report.busy)}"
        if len(eligible) > 1:
            why += f"; chosen by the profile {policy.profile}"
    elif first in passing:
        only = "only version that passed" if others else "only version, and it passed"
        why = f"it is the {only} its gates"
    else:
        why = "no other version passed its gates"
    sentence = f"{verb} {name}: {why}. {failed}".rstrip()
    return Recommendation(sentence, report.candidates.index(first))


def told_apart(ours: CandidateReport, theirs: CandidateReport) -> statistics.SignTest | None:
    """Sign test on the items that both answered; None where there are none."""
    scores = {item.id: item.score for item in theirs.quality.items}
    pairs = [(item.score, scores[item.id]) for item in ours.quality.items if item.id in scores]
    if not pairs:
        return None
    first, second = zip(*pairs, strict=True)
    return statistics.sign_test(first, second)


def _compared(ours: CandidateReport, theirs: CandidateReport, name: str, busy: str) -> str:
    """The winner's speed and quality beside those of the next."""
    clauses = []
    speeds = [one.metrics.get(metrics.DECODE) for one in (ours, theirs)]
    if speeds[0] and speeds[1]:
        ratio = speeds[0] / speeds[1]
        if max(ratio, 1 / ratio) <= SAME_SPEED:
            clauses.append(f"as fast as {name}")
        elif ratio > 1:
            clauses.append(f"{ratio:.1f} times as fast as {name}")
        else:
            clauses.append(f"slower ({name} is {1 / ratio:.1f} times as fast)")
        if busy:
            clauses[-1] += f" (roughly, as {busy} while it was measured)"
    test = told_apart(ours, theirs)
    shares = [one.metrics.get(metrics.QUALITY_SCORE) for one in (ours, theirs)]
    if test is None or shares[0] is None or shares[1] is None:
        clauses.append("quality was not compared")
    else:
        word = "not distinguishable"
        if test.p_value < SIGNIFICANT:
            word = "better" if test.won > test.lost else "worse"
        p_value = f"p = {test.p_value:.2g}" if test.p_value >= 0.001 else "p < 0.001"
        clauses.append(
            f"quality {word} ({100 * shares[0]:.1f} % against {100 * shares[1]:.1f} % of"
            f" {test.items} items: {test.won} won, {test.lost} lost, sign test {p_value})"
        )
    return ", ".join(clauses)


def _failed(others: Sequence[CandidateReport], names: dict[int, str]) -> str:
    """What kept the others out, one clause each."""
    clauses = []
    for one in others:
        if one.failure is not None:
            reason = (one.failure.reason.splitlines() or ["no reason given"])[0]
            clauses.append(f"{names[id(one)]} could not be evaluated ({reason})")
            continue
        failed = [gate.name for gate in one.failed_gates if gate.passed is False]
        undecided = [gate.name for gate in one.failed_gates if gate.passed is None]
        words = [
            f"failed {', '.join(failed)}" if failed else "",
            f"has too little evidence for {', '.join(undecided)}" if undecided else "",
        ]
        said = " and ".join(filter(None, words)) or one.verdict.decision.replace("_", " ")
        clauses.append(f"{names[id(one)]} {said}")
    return f"{'; '.join(clauses)}." if clauses else ""
