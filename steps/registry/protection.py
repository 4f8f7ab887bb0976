"""Protected aliases: the policy names the users who may move them, by any command."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping, Sequence

from steps.config.promotion import PromotionConfig
from steps.core import did_you_mean
from steps.core.errors import ConfigError
from steps.registry import actors
from steps.registry.actors import Actor
from steps.registry.aliases import CANDIDATE, CHAMPION, VARIANTS, challenger_of, previous_of
from steps.registry.client import RegistryClient
from steps.registry.record import Move
from steps.registry.result import RefusedError

log = logging.getLogger(__name__)


# how alike (difflib's ratio) a name must be to one that is there to be suggested, and to be refused
ALIKE, TYPO = 0.6, 0.85
_said: set[str] = set()  # what this process has warned of


class ProtectedAliasError(RefusedError):
    """The actor is not among those who may move this alias; nothing was changed."""


def check_names(registry: RegistryClient, policy: PromotionConfig, there: Collection[str]) -> None:
    """Refuse a protected alias that is one of the policy or the model misspelt, since that one
    would be left to everybody; warn of another alias that is not there, and of users whom the
    server does not know.

    Args:
        registry: the calls to the tracking server.
        policy: ``protected`` and ``alias`` count.
        there: the model's aliases.

    Raises:
        ConfigError: such a misspelling.
    """
    if not policy.protected:
        return
    line = (policy.alias, previous_of(policy.alias), challenger_of(policy.alias))
    known = {*there, *line, *VARIANTS, CANDIDATE, CHAMPION}
    for alias in policy.protected.keys() - known:
        field, expected = "promotion.protected", f"one of {', '.join(sorted(known))}"
        meant = did_you_mean.close(alias, known, 1, ALIKE)
        cure = f"did you mean {meant[0]}?" if meant else "set it first, or take it out"
        typo = did_you_mean.close(alias, known - policy.protected.keys(), 1, TYPO)
        if typo and not alias.startswith(f"{typo[0]}-"):
            raise ConfigError(field, alias, expected, f"did you mean {typo[0]}?")
        _warn(f"{field}={alias!r}: no such alias yet; expected {expected}; {cure}")
    users = {user for users in policy.protected.values() for user in users}
    for user in actors.unknown(registry, sorted(users)):
        aliases = ", ".join(alias for alias, named in policy.protected.items() if user in named)
        _warn(
            f"promotion.protected names {user!r} for {aliases}, whom the tracking server does not"
            " know; correct the name, or create the user"
        )


def _warn(words: str) -> None:
    if words not in _said:
        _said.add(words)
        log.warning("%s", words)


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
