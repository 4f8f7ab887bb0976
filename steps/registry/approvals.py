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
from steps.core.errors import ConfigError
from steps.core.redaction import redact
from steps.registry import approval_entries
from steps.registry.client import PermissionRefusedError, RegistryClient, Version
from steps.registry.journal import Journal
from steps.registry.result import RefusedError
from steps.registry.statements import APPROVE, REJECT, Decision, Statement, Subject

log = logging.getLogger(__name__)

SUFFIX = ".approvals"
KIND = "approvals"  # value of the tag slm.kind on the registered model
STATEMENT_TAG = "slm.approval.statement"  # the statement, as JSON; its exact text is what is signed
SIGNATURE_TAG = "slm.approval.signature"  # base64
ID_TAG = "slm.approval.id"
KEY_FILES = (".pem", ".pub")
DONE = {APPROVE: "approved", REJECT: "rejected"}
OWN = "made or proposed the version"
DESCRIPTION = (
    "Approvals and rejections of versions of `{name}`: one version is one statement. Only approvers"
    " may edit this model. Written by `mlflow run . -e approve` and `-e reject`; do not delete"
    " versions."
)
_named: set[str] = set()  # statements that this process has said it ignores


@dataclass(frozen=True)
class State:
    """What the statements about a subject add up to."""

    approved: tuple[Decision, ...]  # one for each approver that counts
    rejected: Decision | None  # the rejection that stands
    ignored: tuple[str, ...]  # statements about this subject that do not count, and why
    # number of the newest statement about the registered model that was read, 0 where there is none
    seen: int

    def lacks(self, needed: int) -> int:
        return max(0, needed - len(self.approved))


def asked(policy: PromotionConfig) -> bool:
    """Whether the policy asks other people at all. If not, the policy does not say who may
    edit ``<name>.approvals``, and no administrator has created it for approvers.

    MLflow lets every user create a registered model and be its manager, and does not tell who did.
    """
    return policy.approvals > 0 or bool(policy.approvers)


def create(registry: RegistryClient, name: str) -> None:
    """Create ``<name>.approvals`` unless it is there: by who may move aliases, before a user who
    may only read can be its manager.
    """
    registry.ensure_model(name_of(name), DESCRIPTION.format(name=name), {"slm.kind": KIND})


def name_of(registered_name: str) -> str:
    """Name of the registered model that holds the approvals of another."""
    return registered_name + SUFFIX


def is_key(approver: str) -> bool:
    """Whether an entry of ``promotion.approvers`` is a public key's file; else it is a user
    name.
    """
    return approver.endswith(KEY_FILES)


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
    was removed. An approver counts once, by a name and a key alike. Where the policy asks for no
    approval, no statement counts.

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
    signatures.verify(b"", b"", _keys(policy), field="promotion.approvers")
    found = registry.versions(name_of(subject.name))
    if not asked(policy):
        return State((), None, tuple(_unasked(found, subject)), _last(found)), ()
    decisions, ignored = _read(found, subject, policy, history)
    removed = _removed(decisions, subject, policy, history)
    # one for each person, with the names that are known of each
    approved: list[tuple[set[str], Decision]] = []
    rejected: Decision | None = None
    excluded = (
        set(others()) if any(each.statement.decision == APPROVE for each in decisions) else set()
    )
    counted: list[Decision] = []
    for each in approval_entries.in_order(
        decisions, removed, {version.number: version.created_ms for version in found}
    ):
        about_this = each.statement.subject.same(subject)
        if each.statement.decision == REJECT:
            if not each.statement.holds_for(subject):
                continue
            approved, rejected = [], each
        elif own := sorted(each.names & excluded):
            ignored += (
                [f"statement {each.number} by {each.approver} ({own[0]} {OWN})"]
                if about_this
                else []
            )
            continue
        elif not about_this:
            # it says nothing about this evidence, but takes back what was said about its own
            rejected = (
                None
                if rejected and each.statement.subject.same(rejected.statement.subject)
                else rejected
            )
            continue
        else:
            approved, rejected = _with(approved, each), None
        if all(each is not other for other, _ in removed):
            counted.append(each)
    return State(
        tuple(each for _, each in approved), rejected, tuple(ignored), _last(found)
    ), tuple(counted)


def _unasked(found: Sequence[Version], subject: Subject) -> list[str]:
    """Name the statements about a subject, none of which counts as the policy asks nobody; in one
    line of the log, once.
    """
    about = [
        version
        for version in found
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
                " and promotion.approvers names nobody; name the approvers there to have their"
                " statements counted"
            ),
        )
    return [f"statement {version.number} (the policy asks nobody)" for version in about]


def _with(
    approved: Sequence[tuple[set[str], Decision]], new: Decision
) -> list[tuple[set[str], Decision]]:
    """Approvals with one more; those that share a name with it are the same person's."""
    known = [names for names, _ in approved if names & new.names]
    return [
        *((names, each) for names, each in approved if not names & new.names),
        (new.names.union(*known), new),
    ]


def _removed(
    decisions: Sequence[Decision], subject: Subject, policy: PromotionConfig, history: Journal
) -> list[tuple[Decision, int]]:
    """Rejections that the journal holds and ``<name>.approvals`` does not any more, of approvers
    whom the policy names.
    """
    there = {each.journal_id for each in decisions}
    gone = [
        (each, at)
        for each, at in approval_entries.rejections(history, subject)
        if each.statement.id not in there
    ]
    keys = (
        {signatures.fingerprint_of(each, field="promotion.approvers") for each in _keys(policy)}
        if gone
        else set()
    )
    names = {each for each in policy.approvers if not is_key(each)}
    return [
        (each, at)
        for each, at in gone
        if each.key in keys or not policy.approvers or each.statement.actor in names
    ]


def last_number(registry: RegistryClient, name: str) -> int:
    """Number of the newest statement about a registered model, 0 where there is none: tells whether
    anything was said since.
    """
    return _last(registry.versions(name_of(name)))


def _last(found: Sequence[Version]) -> int:
    return max((version.number for version in found), default=0)


def judge_author(
    statement: Statement, text: str, signature: str | None, policy: PromotionConfig
) -> tuple[str, str | None] | str:
    """Whether the policy lets this author decide.

    Args:
        statement: what was said.
        text: the same, exactly as it was signed.
        signature: base64, where there is one.
        policy: ``approvers`` counts.

    Returns:
        The approver's name and the fingerprint of the key that signed, or a text that says why not.
    """
    keys = _keys(policy)
    names = [each for each in policy.approvers if not is_key(each)]
    signer = (
        signatures.identify(text.encode(), signature.encode(), keys, field="promotion.approvers")
        if signature and keys
        else None
    )
    if signer is not None:
        return signer.name, signer.fingerprint
    if keys and not names:
        return "it is not signed by a key that promotion.approvers names"
    if names and statement.actor not in names:
        return f"promotion.approvers does not name {statement.actor}"
    if statement.decision == APPROVE and not statement.authenticated:
        return f"the name {statement.actor} is claimed, no server confirmed it"
    return statement.actor, None


def write(
    registry: RegistryClient,
    statement: Statement,
    policy: PromotionConfig,
    signing_key: str | None,
    others: Collection[str] = (),
    *,
    dry_run: bool,
) -> Decision:
    """Write a statement into ``<name>.approvals``, which is created where it is missing.

    Args:
        registry: the calls to the tracking server.
        statement: what its author says.
        policy: ``approvers`` counts.
        signing_key: PEM file of the author's private key, where there is one.
        others: names of who made and who proposed the version; they may not approve it.
        dry_run: check everything and write nothing.

    Raises:
        ConfigError: a key file cannot be read, or the policy asks nobody.
        RefusedError: the policy does not let the author decide; nothing was written.
        PermissionRefusedError: the user may not edit ``<name>.approvals``.
    """
    if not asked(policy):
        raise ConfigError(
            "promotion.approvers",
            list(policy.approvers),
            "user names or key files while promotion.approvals=0, since otherwise nobody's"
            " statement counts; nothing was " + DONE[statement.decision],
            "name the approvers in conf/local/default.yaml, for those who promote as well",
        )
    text, subject = statement.to_json(), statement.subject
    signature = signatures.sign(text.encode(), signing_key).decode() if signing_key else None
    author = judge_author(statement, text, signature, policy)
    if isinstance(author, str):
        cure = (
            "pass signing_key=<PEM file>"
            if any(map(is_key, policy.approvers)) or not statement.authenticated
            else "ask one of them"
        )
        raise RefusedError(
            f"{statement.decision} is not for you, nothing was written: {author}; {cure}"
        )
    decision = _decision(0, statement, author)
    if statement.decision == APPROVE and (own := sorted(decision.names.intersection(others))):
        raise RefusedError(
            f"models:/{subject.name}/{subject.version}: {own[0]} {OWN}; somebody else must approve"
            " it; nothing was written"
        )
    if dry_run:
        return decision
    tags = {STATEMENT_TAG: text, ID_TAG: statement.id} | (
        {SIGNATURE_TAG: signature} if signature else {}
    )
    approvals_name = name_of(subject.name)
    try:
        create(registry, subject.name)
        made = registry.create_version(
            approvals_name,
            f"models:/{subject.name}/{subject.version}",
            tags,
            f"{statement.decision} version {subject.version} for @{subject.alias}\n\nby"
            f" {decision.approver}: {statement.reason}",
            landed=lambda version: version.tags.get(ID_TAG) == statement.id,
        )
    except PermissionRefusedError as error:
        raise PermissionRefusedError(
            f"models:/{approvals_name}: the tracking server does not let {statement.actor} write"
            f" there ({error.__cause__}); ask its administrator for EDIT permission on it, which"
            " approvers alone should have"
        ) from error
    return _decision(made.number, statement, author)


def _keys(policy: PromotionConfig) -> list[str]:
    return [each for each in policy.approvers if is_key(each)]


def _read(
    found: Sequence[Version], subject: Subject, policy: PromotionConfig, history: Journal
) -> tuple[list[Decision], list[str]]:
    """Decisions about a version on whatever evidence, oldest first, and which statements about the
    subject are nobody's.
    """
    decisions: list[Decision] = []
    ignored: list[str] = []
    seen: set[str] = set()
    for version in found:
        said = _statement(version)
        if said is None:
            continue
        statement, text = said
        if not statement.subject.same_version(subject) or statement.id in seen:
            continue
        author = judge_author(statement, text, version.tags.get(SIGNATURE_TAG), policy)
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
        decisions.append(_decision(version.number, statement, author))
    return decisions, ignored


def _statement(version: Version) -> tuple[Statement, str] | None:
    text = version.tags.get(STATEMENT_TAG, "")
    try:
        return Statement.from_json(text), text
    except ValueError:
        # whoever may edit the model may write anything; what is not a statement decides nothing
        return None


def _decision(number: int, statement: Statement, author: tuple[str, str | None]) -> Decision:
    approver, key = author
    return Decision(number, statement, approver, key, authenticated=key is not None)


def who_approved(decisions: Sequence[Decision]) -> str:
    """Who approved, in words."""
    return ", ".join(each.approver for each in decisions) or "nobody"
