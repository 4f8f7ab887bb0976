"""The commands of the registry as their entry scripts call them, on a composed config."""

from collections.abc import Collection, Mapping
from dataclasses import replace

from steps.config.root import Config
from steps.registry import target
from steps.registry.candidate_decision import Evaluate, Verdict
from steps.registry.client import RegistryClient
from steps.registry.promote import promote as move
from steps.registry.register import register as register_versions
from steps.registry.result import Promotion, Row
from steps.registry.rollback import rollback as move_back
from steps.registry.verdict_memory import Memory
from steps.registry.watcher import Watcher


def promote(
    config: Config,
    *,
    registry: RegistryClient | None = None,
    beaten: Mapping[str, int | None] | None = None,
) -> Promotion:
    return move(
        registry or RegistryClient(config.promotion.retry_seconds),
        target.parse(config.target, config),
        config.promotion,
        config.model,
        alias=target.alias_of(config),
        force=config.force,
        reason=config.reason,
        report_uri=config.report_uri,
        dry_run=config.dry_run,
        beaten=beaten,
    )


def rollback(config: Config, *, registry: RegistryClient | None = None) -> Promotion:
    name, alias = target.to_roll_back(config)
    return move_back(
        registry or RegistryClient(config.promotion.retry_seconds),
        name,
        replace(config.promotion, alias=alias),
        to=config.to,
        reason=config.reason,
        force=config.force,
        dry_run=config.dry_run,
    )


def register(
    report_uri: str,
    config: Config,
    *,
    dry_run: bool = False,
    registry: RegistryClient | None = None,
    reason: str | None = None,
) -> Promotion:
    return register_versions(
        registry or RegistryClient(config.promotion.retry_seconds),
        report_uri,
        config.promotion,
        config.model,
        dry_run=dry_run,
        reason=reason,
    )


def poll_once(
    config: Config,
    registry: RegistryClient,
    evaluate: Evaluate,
    *,
    again: Collection[tuple[str, int]] = (),
    memory: Memory | None = None,
) -> list[Verdict]:
    """All verdicts of one poll of `watch`."""
    return list(Watcher(config, registry, evaluate, memory=memory).poll(again))


def champion_of(done: Promotion) -> Row | None:
    """The version that the policy's alias points at, if the command looked at it."""
    return next((row for row in done.rows if done.alias in row.aliases), None)
