"""Who may approve and reject: users and keys that the policy names."""

from __future__ import annotations

from steps.config.promotion import PromotionConfig
from steps.core import signatures
from steps.registry.statements import APPROVE, Statement

KEY_FILES = (".pem", ".pub")


def is_key(approver: str) -> bool:
    """Whether an entry of ``promotion.approvers`` is a public key's file, not a user name."""
    return approver.endswith(KEY_FILES)


def names_decide(policy: PromotionConfig) -> bool:
    """Whether a statement counts by the name in it, not by a key that signed it alone."""
    return not policy.approvers or not all(map(is_key, policy.approvers))


def accept(
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
    keys = key_files(policy)
    names = [approver for approver in policy.approvers if not is_key(approver)]
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


def key_files(policy: PromotionConfig) -> list[str]:
    """The public keys that the policy names."""
    return [approver for approver in policy.approvers if is_key(approver)]
