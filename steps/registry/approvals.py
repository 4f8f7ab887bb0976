"""Approvals and rejections: statements about the bytes and the evidence of a version, in a
registered model that approvers may edit.

Each statement is one version of ``<name>.approvals``: a tag holds it as JSON, a second one a
detached signature where its author has a key. MLflow enforces who may write there and nothing about
the name in it: see docs/promotion-protocol.md for what each form proves.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from steps.config.promotion import PromotionConfig
from steps.core import signatures
from steps.core.redaction import redact
from steps.registry import actors, approval_entries, approvers, belonging
from steps.registry.client import RegistryClient
from steps.registry.journal import KIND_TAG, Journal
from steps.registry.model_version import Version
from steps.registry.result import RefusedError
from steps.registry.statements import APPROVE, REJECT, Decision, Statement, Subject

log = logging.getLogger(__name__)

SUFFIX = ".approvals"
KIND = "approvals"  # value of the tag slm.kind on the registered model
STATEMENT_TAG = "slm.approval.statement"  # the statement, as JSON; its exact text is what is signed
SIGNATURE_TAG = "slm.approval.signature"  # base64
ID_TAG = "slm.approval.id"
DONE = {APPROVE: "approved", REJECT: "rejected"}
OWN = "made or proposed the version"
DESCRIPTION = (
    "Approvals and rejections of versions of `{name}`: one version is one statement. Only approvers"
    " may edit this model. Written by `mlflow run . -e approve` and `-e reject`; do not delete"
    " versions."
)
_named: set[str] = set()  # statements that this process has said it ignores


class UnpreparedError(RefusedError):
    """Who writes to ``<name>.approvals`` is in no administrator's hand; nothing was changed."""


@dataclass(frozen=True)
class State:
    """What the statements about a subject add up to."""

    approved: tuple[Decision, ...]  # one for each approver that counts
    rejected: Decision | None  # the rejection that stands
    ignored: tuple[str, ...]  # statements about this subject that do not count, and why

    def lacks(self, needed: int) -> int:
        return max(0, needed - len(self.approved))


def asked(policy: PromotionConfig) -> bool:
    """Whether the policy asks other people at all. If not, the policy does not say who may edit
    ``<name>.approvals``, and no administrator has created it for approvers.

    MLflow lets every user create a registered model and be its manager, and does not tell who did.
    """
    return policy.approvals > 0 or bool(policy.approvers)


def create(registry: RegistryClient, name: str, policy: PromotionConfig) -> None:
    """Create ``<name>.approvals`` unless it is there, so that no other user becomes its manager.

    Its creator may write any name into it. So where names may decide and the server may have users,
    an administrator creates it, and no command of whoever promotes or approves.

    Raises:
        UnpreparedError: an administrator must create it, or take it from who promotes.
    """
    model = name_of(name)
    if not approvers.names_decide(policy) or belonging.without_users():
        registry.ensure_model(model, DESCRIPTION.format(name=name), {KIND_TAG: KIND})
        return
    if registry.aliases(model) is None:
        raise UnpreparedError(
            f"models:/{model}: expected to be there, as its creator could approve in any name that"
            f" promotion.approvers={list(policy.approvers)} lets decide, and nothing was done; an"
            f" administrator runs `mlflow.MlflowClient().create_registered_model({model!r},"
            f" tags={ {KIND_TAG: KIND} })` and gives approvers alone EDIT on it"
            " (docs/team-setup.md), or name keys in promotion.approvers"
        )
    if actors.manages(registry, model):
        raise UnpreparedError(
            f"models:/{model}: you are its manager, so you could approve in any name that"
            f" promotion.approvers={list(policy.approvers)} lets decide, and nothing was done; an"
            " administrator deletes it, creates it and gives approvers alone EDIT on it"
            " (docs/team-setup.md), or name keys in promotion.approvers"
        )


def name_of(registered_name: str) -> str:
    """Name of the registered model that holds the approvals of another."""
    return registered_name + SUFFIX


def state(
    registry: RegistryClient,
    subject: Subject,
    policy: PromotionConfig,
    history: Journal,
    others: Callable[[], Collection[str]],
) -> tuple[State, tuple[Decision, ...]]:
    """What the statements about a subject add up to, and all decisions about it that count or
    counted, oldest first.

    A rejection stands until an approver approves after it; it also ends the approvals before it. It
    is also against older evidence of the same bytes, and stands by the history where its statement
    was removed. An approval ends when the alias is moved back from these bytes. An approver counts
    once, by a name and a key alike. Where the policy asks for no approval, no statement counts.

    Args:
        registry: the calls to the tracking server.
        subject: what is to be approved.
        policy: ``approvals`` and ``approvers`` count.
        history: the journal of the registered model.
        others: names of who made and who proposed the version; their approvals do not count, their
            rejections do. Asked for only where there is an approval.

    Raises:
        ConfigError: a key file of ``promotion.approvers`` cannot be read.
    """
    # a wrong path is said before somebody has signed
    signatures.verify(b"", b"", approvers.key_files(policy), field="promotion.approvers")
    statements = registry.versions(name_of(subject.name))
    if not asked(policy):
        return State((), None, tuple(_unasked(statements, subject))), ()
    decisions, ignored = _read(statements, subject, policy, history)
    removed = _removed(decisions, subject, policy, history)
    # one for each person, with the names that are known of each
    approved: list[tuple[set[str], Decision]] = []
    rejected: Decision | None = None
    excluded = (
        set(others())
        if any(decision.statement.decision == APPROVE for decision in decisions)
        else set()
    )
    counted: list[Decision] = []
    made = {version.number: version.created_ms for version in statements}
    back = approval_entries.taken_back(history, subject)
    for decision in approval_entries.in_order(decisions, removed, made):
        about_this = decision.statement.subject.same(subject)
        if decision.statement.decision == REJECT:
            if not decision.statement.holds_for(subject):
                continue
            approved, rejected = [], decision
        elif own := sorted(decision.names & excluded):
            ignored += (
                [f"statement {decision.number} by {decision.approver} ({own[0]} {OWN})"]
                if about_this
                else []
            )
            continue
        elif not about_this:
            # it says nothing about this evidence, but takes back what was said about its own
            rejected = (
                None
                if rejected and decision.statement.subject.same(rejected.statement.subject)
                else rejected
            )
            continue
        else:
            rejected = None
            if back is not None and approval_entries.given_before(
                history, decision, made[decision.number], back
            ):
                why = f"given before entry {back.number} moved @{subject.alias} back from it"
                ignored.append(f"statement {decision.number} by {decision.approver} ({why})")
            else:
                approved = _with(approved, decision)
        if all(decision is not other for other, _ in removed):
            counted.append(decision)
    return State(tuple(decision for _, decision in approved), rejected, tuple(ignored)), tuple(
        counted
    )


def _unasked(statements: Sequence[Version], subject: Subject) -> list[str]:
    """Log once which statements about a subject are ignored, as the policy asks for no approval."""
    about = [
        version
        for version in statements
        if (said := _statement(version)) and said[0].subject.same(subject)
    ]
    numbers = ", ".join(str(version.number) for version in about)
    if numbers and (key := f"{name_of(subject.name)} {numbers}") not in _named:
        _named.add(key)
        log.warning(
            "%s",
            redact(
                f"models:/{name_of(subject.name)}: statements {numbers} about"
                f" models:/{subject.name}/{subject.version} are ignored, as promotion.approvals=0"
                " and promotion.approvers is empty; name the approvers there to have their"
                " statements counted"
            ),
        )
    return [f"statement {version.number} (the policy asks for no approval)" for version in about]


def _with(
    approved: Sequence[tuple[set[str], Decision]], new: Decision
) -> list[tuple[set[str], Decision]]:
    """Approvals with one more; those that share a name with it are the same person's."""
    known = [names for names, _ in approved if names & new.names]
    return [
        *((names, decision) for names, decision in approved if not names & new.names),
        (new.names.union(*known), new),
    ]


def _removed(
    decisions: Sequence[Decision], subject: Subject, policy: PromotionConfig, history: Journal
) -> list[tuple[Decision, int]]:
    """Rejections by approvers that the journal holds and ``<name>.approvals`` does not any more."""
    there = {decision.journal_id for decision in decisions}
    gone = [
        (decision, at)
        for decision, at in approval_entries.rejections(history, subject)
        if decision.statement.id not in there
    ]
    keys = (
        {
            signatures.fingerprint_of(file, field="promotion.approvers")
            for file in approvers.key_files(policy)
        }
        if gone
        else set()
    )
    names = {name for name in policy.approvers if not approvers.is_key(name)}
    return [
        (decision, at)
        for decision, at in gone
        if decision.key in keys or not policy.approvers or decision.statement.actor in names
    ]


def _read(
    statements: Sequence[Version], subject: Subject, policy: PromotionConfig, history: Journal
) -> tuple[list[Decision], list[str]]:
    """Decisions about a version on any evidence, and which statements do not count, and why."""
    decisions: list[Decision] = []
    ignored: list[str] = []
    seen: set[str] = set()
    for version in statements:
        said = _statement(version)
        if said is None:
            continue
        statement, text = said
        if not statement.subject.same_version(subject) or statement.id in seen:
            continue
        author = approvers.accept(statement, text, version.tags.get(SIGNATURE_TAG), policy)
        if subject.forced and statement.decision == APPROVE and not statement.subject.forced:
            author = "it approves a version that passed, and it does not pass now"
        if (
            first := approval_entries.repeats(
                history, statement, version.number, version.created_ms
            )
        ) is not None:
            author = f"it repeats statement {first}"
        if isinstance(author, str):
            ignored += (
                [f"statement {version.number} ({author})"]
                if statement.subject.same(subject)
                else []
            )
            continue
        seen.add(statement.id)
        decisions.append(decision_of(version.number, statement, author))
    return decisions, ignored


def _statement(version: Version) -> tuple[Statement, str] | None:
    text = version.tags.get(STATEMENT_TAG, "")
    try:
        return Statement.from_json(text), text
    except ValueError:
        # whoever may edit the model may write anything; what is not a statement decides nothing
        return None


def decision_of(number: int, statement: Statement, author: tuple[str, str | None]) -> Decision:
    approver, key = author
    return Decision(number, statement, approver, key, authenticated=key is not None)
