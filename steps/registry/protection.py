"""Protected aliases: the policy names the users who may move them, by any command."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from steps.config.promotion import PromotionConfig
from steps.registry.actors import Actor
from steps.registry.record import Move
from steps.registry.result import RefusedError


class ProtectedAliasError(RefusedError):
    """The actor is not among those who may move this alias; nothing was changed."""


def fault_of(alias: str, who: Actor, protected: Mapping[str, Sequence[str]]) -> str:
    """Why this actor may not move an alias, by ``promotion.protected``; empty where they may."""
    users = protected.get(alias)
    if users is None or (who.authenticated and who.name in users):
        return ""
    allowed = f"@{alias} may be moved by {', '.join(users)} alone (promotion.protected.{alias})"
    if who.authenticated:
        return f"{allowed}, and the tracking server says that you are {who.name}: ask one of them"
    return (
        f"{allowed}, and {who.shown} is a name that no server confirmed: use a tracking server with"
        " users, see docs/team-setup.md"
    )


def check_protected(moves: Sequence[Move], who: Actor, policy: PromotionConfig) -> None:
    """Refuse moves of protected aliases by others than the policy names.

    Raises:
        ProtectedAliasError: with the alias and its users.
    """
    for move in moves:
        if fault := fault_of(move.alias, who, policy.protected):
            raise ProtectedAliasError(f"{fault}; nothing was changed. No reason overrules this.")
