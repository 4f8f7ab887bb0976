"""Approve or reject a version for an alias: what an approver does."""

from __future__ import annotations

import logging
from collections.abc import Collection
from dataclasses import dataclass, replace

from steps.config.notifications import APPROVED, REJECTED
from steps.config.promotion import PromotionConfig
from steps.config.root import Config
from steps.core import signatures
from steps.core.commands import mlflow_run
from steps.core.errors import ConfigError, StepError
from steps.core.redaction import redact
from steps.registry import (
    actors,
    approvals,
    approvers,
    eligibility,
    evidence,
    evidence_selection,
    proposals,
    trust,
)
from steps.registry import target as targets
from steps.registry.alias_store import AliasStore
from steps.registry.approval_entries import entry_about, proposal
from steps.registry.approvals import State
from steps.registry.client import PermissionRefusedError, RegistryClient, ServerUnavailableError
from steps.registry.eligibility import Assessment
from steps.registry.evidence_selection import Choice
from steps.registry.journal import Journal
from steps.registry.model_version import Version
from steps.registry.notifications import check, notify
from steps.registry.result import RefusedError
from steps.registry.statements import APPROVE, Decision, Statement, Subject

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Said:
    """An approval or a rejection, and what all of them add up to."""

    decision: Decision
    subject: Subject
    state: State
    needed: int
    dry_run: bool

    @property
    def uri(self) -> str:
        return f"models:/{approvals.name_of(self.subject.name)}/{self.decision.number}"

    @property
    def words(self) -> str:
        """What was said and what comes next, in a line."""
        statement, subject = self.decision.statement, self.subject
        verb = "approved" if statement.decision == APPROVE else "rejected"
        proof = "signed" if self.decision.key else "not signed"
        done = (
            f"{'would be ' if self.dry_run else ''}{verb} for @{subject.alias} by"
            f" {self.decision.approver} ({proof})"
        )
        words = (
            f"models:/{subject.name}/{subject.version} {done}: bytes {subject.digest}, evidence"
            f" {subject.evidence_digest}"
        )
        if self.dry_run or statement.decision != APPROVE:
            return words
        if missing := self.state.lacks(self.needed):
            return f"{words}; {missing} of {self.needed} approvals are still missing"
        parameters = {"target": f"models:/{subject.name}/{subject.version}"}
        if subject.alias != "champion":
            parameters["alias"] = subject.alias
        return f"{words}; to move it: {mlflow_run('promote', parameters)}"


def decide(decision: str, config: Config, *, registry: RegistryClient | None = None) -> Said:
    """Write an approval or a rejection of a version, on the evidence that it was proposed with,
    else what a promotion would go by now.

    Args:
        decision: ``approve`` or ``reject``.
        config: ``target`` (a version, or an alias such as ``@candidate``), ``alias``, ``reason``,
            ``signing_key``, ``force``, ``dry_run`` and ``promotion`` count.
        registry: the tracking server; the default follows the process's URIs.

    Raises:
        ConfigError: no reason, a target without a version, or a key file that cannot be read.
        RefusedError: the version does not pass (``force`` approves it all the same, for a promotion
            by force), or its author may not decide, as the policy or the history say, or the
            evidence that it was proposed with cannot be read; nothing was written.
        PermissionRefusedError: the user may not edit ``<name>.approvals``.
    """
    reason = redact((config.reason or "").strip())
    if not reason:
        raise ConfigError(
            "reason",
            config.reason,
            f"why you {decision} it",
            "pass reason='…'; the history keeps it",
        )
    alias = targets.alias_of(config)
    registry = registry or RegistryClient(config.promotion.retry_seconds)
    target = targets.parse(config.target, config)
    version = targets.version_of(registry, target)
    if version is None:
        raise ConfigError(
            "target",
            config.target,
            f"a version to {decision}",
            f"pass target=models:/{target.name}/<version>",
        )
    store = AliasStore(registry, version.name)
    history = store.read()
    policy = replace(config.promotion, alias=alias)
    assessment = _assess(registry, history, version, policy, config.report_uri)
    if decision == APPROVE and assessment.objections and not config.force:
        raise RefusedError(
            f"{version.uri} does not pass, so there is nothing to approve yet:"
            f" {'; '.join(assessment.objections)}. To approve a promotion by force: force=true"
        )
    subject = proposals.subject_of(assessment, alias)
    others = proposals.excluded(registry, history, version, subject)
    statement = Statement.by(actors.who(registry), decision, subject, reason)
    check(config.notifications)
    done = write(registry, statement, policy, config.signing_key, others, dry_run=config.dry_run)
    if not config.dry_run:
        _note(store, done, subject)
    event = APPROVED if decision == APPROVE else REJECTED
    uri, digest = subject.evidence, subject.evidence_digest
    notify(
        config,
        event,
        version.name,
        version=version.number,
        alias=alias,
        reason=reason,
        evidence=uri,
        evidence_digest=digest,
    )
    state, _ = approvals.state(registry, subject, policy, history, lambda: others)
    return Said(done, subject, state, config.promotion.approvals, config.dry_run)


def _assess(
    registry: RegistryClient,
    history: Journal,
    version: Version,
    policy: PromotionConfig,
    report_uri: str | None,
) -> Assessment:
    """Assess a version by the report that it was proposed with, wherever that is from: this run may
    trust other experiments.

    Raises:
        RefusedError: that report cannot be read any more, and there is no other: a statement about
            no evidence would decide nothing.
    """
    proposed = proposal(history, version.number, policy.alias)
    trouble = ""
    if proposed and proposed.evidence and not report_uri:
        try:
            report = evidence.read(proposed.evidence, registry, trust.places(registry, policy))
        except ServerUnavailableError:
            raise
        except StepError as error:
            trouble = str(error)
        else:
            if report.digest != proposed.evidence_digest:
                trouble = "it was changed since"
            elif evidence_selection.counts(report, policy):
                assessment = eligibility.assess(
                    registry, version, policy, choice=Choice(report, "")
                )
                if assessment.digest == proposed.details.get("digest"):
                    return assessment
    assessment = eligibility.assess(registry, version, policy, report_uri=report_uri)
    if proposed and proposed.evidence and assessment.evidence is None:
        why = redact(f" ({trouble})" if trouble else "")
        raise RefusedError(
            f"{version.uri} was proposed with {redact(proposed.evidence)}, which does not count"
            f" now{why}, and there is no other evidence; nothing was written: have it evaluated and"
            " proposed again, or pass report_uri=runs:/<run>/report.json"
        )
    return assessment


def _note(store: AliasStore, decision: Decision, subject: Subject) -> None:
    """Put the statement into the journal where the approver may; else the next promotion does."""
    try:
        if store.registry.aliases(store.history) is not None:
            store.note(entry_about(decision, subject))
            return
    except PermissionRefusedError:
        log.debug("no permission on %s", store.history)
    except StepError as error:  # the statement is written, which is what counts
        log.warning("%s: %s", store.history, redact(str(error)))
    log.info("the next promote or watch copies this into %s", store.history)


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
        ConfigError: a key file cannot be read, or the policy asks for no approval.
        RefusedError: the policy does not let the author decide; nothing was written.
        PermissionRefusedError: the user may not edit ``<name>.approvals``.
    """
    if not approvals.asked(policy):
        raise ConfigError(
            "promotion.approvers",
            list(policy.approvers),
            "user names or key files while promotion.approvals=0, since otherwise no"
            " statement counts; nothing was " + approvals.DONE[statement.decision],
            "name the approvers in conf/local/default.yaml, for those who promote as well",
        )
    text, subject = statement.to_json(), statement.subject
    signature = signatures.sign(text.encode(), signing_key).decode() if signing_key else None
    author = approvers.accept(statement, text, signature, policy)
    if isinstance(author, str):
        cure = (
            "pass signing_key=<PEM file>"
            if any(map(approvers.is_key, policy.approvers)) or not statement.authenticated
            else "ask one of them"
        )
        raise RefusedError(
            f"{statement.decision} is not for you, nothing was written: {author}; {cure}"
        )
    decision = approvals.decision_of(0, statement, author)
    if statement.decision == APPROVE and (own := sorted(decision.names.intersection(others))):
        raise RefusedError(
            f"models:/{subject.name}/{subject.version}: {own[0]} {approvals.OWN}; somebody else"
            " must approve it; nothing was written"
        )
    if dry_run:
        return decision
    tags = {approvals.STATEMENT_TAG: text, approvals.ID_TAG: statement.id} | (
        {approvals.SIGNATURE_TAG: signature} if signature else {}
    )
    approvals_name = approvals.name_of(subject.name)
    try:
        approvals.create(registry, subject.name, policy)
        made = registry.create_version(
            approvals_name,
            f"models:/{subject.name}/{subject.version}",
            tags,
            f"{statement.decision} version {subject.version} for @{subject.alias}\n\nby"
            f" {decision.approver}: {statement.reason}",
            landed=lambda version: version.tags.get(approvals.ID_TAG) == statement.id,
        )
    except PermissionRefusedError as error:
        raise PermissionRefusedError(
            f"models:/{approvals_name}: the tracking server does not let {statement.actor} write"
            f" there ({error.__cause__}); ask its administrator for EDIT permission on it, which"
            " approvers alone should have"
        ) from error
    return approvals.decision_of(made.number, statement, author)
