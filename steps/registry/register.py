"""From a report to versions and aliases."""

from __future__ import annotations

import getpass
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from steps.config.root import Config
from steps.pipeline.errors import StepError
from steps.registry import evidence as evidence_module
from steps.registry import policy, versions
from steps.registry.aliases import VARIANTS, VERDICT_TAG, challenger_of, previous_of
from steps.registry.evidence import PROMOTE, Evidence, Judged
from steps.registry.gateway import Gateway, Version
from steps.registry.journal import Move, Record, new_id
from steps.registry.ledger import Ledger

SCHEMA = "slm-promote/promotion/1"
ARTIFACT = "promotion.json"


@dataclass(frozen=True)
class Row:
    """One version, as the closing table shows it."""

    name: str
    version: int | None  # None in a dry run that would create it
    variant: str
    model_id: str
    digest: str
    decision: str
    aliases: tuple[str, ...]
    scores: Mapping[str, float]
    created: bool
    failed_gates: tuple[str, ...]

    @property
    def uri(self) -> str:
        return f"models:/{self.name}/{self.version}" if self.version else f"models:/{self.model_id}"


@dataclass(frozen=True)
class Promotion:
    """What a run did to the registry, or would do."""

    name: str
    report_uri: str
    evidence_digest: str
    profile: str
    alias: str
    rows: tuple[Row, ...]
    moves: tuple[Move, ...]
    reason: str
    entry: int | None  # number in the journal; None where nothing moved
    dry_run: bool

    @property
    def champion(self) -> Row | None:
        """The version that the policy's alias points at, if this report judged it."""
        return next((row for row in self.rows if self.alias in row.aliases), None)

    def to_json(self) -> dict[str, Any]:
        plain = dict(vars(self))
        plain["rows"] = [{**vars(row), "scores": dict(row.scores)} for row in self.rows]
        plain["moves"] = [vars(move) for move in self.moves]
        return {"schema": SCHEMA, **plain}


def register(report_uri: str, config: Config, *, dry_run: bool = False, gateway: Gateway | None = None) -> Promotion:
    """Register what a report judged, and move the aliases that it earned.

    Every evaluated candidate gets one version; ``transformers`` and ``onnx`` go to the newest version of each that passes its gates; the
    policy's winner gets the policy's alias, its runner-up the challenger's, and what the alias pointed at before becomes the
    previous one. A held candidate gets a version, for the record, and no alias. The same report again changes nothing.

    Args:
        report_uri: ``runs:/<run>/report.json``.
        config: the composed config; ``promotion`` and ``model`` count.
        dry_run: say what would change and change nothing.
        gateway: the tracking server; the default follows the process's URIs.

    Raises:
        StepError: no such report, nothing in it was evaluated, or the server refuses or does not answer.
        LostRaceError: another promoter moved an alias in between; no alias was moved here.
    """
    report = evidence_module.read(report_uri)
    name = report.registered_name
    gateway = gateway or Gateway(config.promotion.retry_seconds)
    evaluated = [each for each in report.candidates if each.status == "evaluated"]
    if not evaluated:
        failures = "; ".join(f"{each.uri}: {each.failure}" for each in report.candidates) or "the report names no candidate"
        raise StepError(f"{report_uri}: nothing to register, as no candidate was evaluated ({failures})")
    ledger = Ledger(gateway, name)
    if dry_run:
        view = ledger.peek()
        found = {each.model_id: versions.find(gateway, name, each.model_id) for each in evaluated}
        created: set[str] = {model_id for model_id, version in found.items() if version is None}
    else:
        gateway.ensure_model(name, describe(name, report, config), {})
        view = ledger.open()
        made = {each.model_id: versions.register(gateway, name, each, report, command(config)) for each in evaluated}
        found = {model_id: each.version for model_id, each in made.items()}
        created = {model_id for model_id, each in made.items() if each.created}
    planned = _numbers(gateway, name, evaluated, found)
    aliases, reason = decide(report, planned, gateway.versions(name), view.aliases, config)
    moves = tuple(Move(alias, view.aliases.get(alias), after) for alias, after in aliases.items() if view.aliases.get(alias) != after)
    entry = None
    if moves and not dry_run:
        entry = ledger.commit(
            view,
            Record(
                id=new_id(),
                kind="register",
                moves=moves,
                actor=actor(),
                reason=reason,
                profile=config.promotion.profile,
                evidence=report.uri,
                evidence_digest=report.digest,
                run_id=active_run_id(),
            ),
        )
    final = {**view.aliases, **aliases}
    promotion = Promotion(
        name=name,
        report_uri=report.uri,
        evidence_digest=report.digest,
        profile=config.promotion.profile,
        alias=config.promotion.alias,
        rows=tuple(_row(name, each, planned[each.model_id], found[each.model_id], final, each.model_id in created) for each in evaluated),
        moves=moves,
        reason=reason,
        entry=entry.number if entry else None,
        dry_run=dry_run,
    )
    if active_run_id() is not None:
        import mlflow

        mlflow.log_dict(promotion.to_json(), ARTIFACT)
    return promotion


def decide(
    report: Evidence, planned: Mapping[str, int], known: Sequence[Version], current: Mapping[str, int], config: Config
) -> tuple[dict[str, int], str]:
    """Aliases that the report earns, and why.

    Args:
        report: the evidence.
        planned: version number of each evaluated candidate by model id.
        known: versions in the registry.
        current: the aliases now.
        config: the composed config.

    Returns:
        Alias to version, for those that the report has something to say about; and one sentence.
    """
    by_id = {each.model_id: each.number for each in known if each.model_id} | dict(planned)
    wanted: dict[str, int] = {}
    for variant in VARIANTS:
        passing = [planned[each.model_id] for each in report.candidates if each.variant == variant and each.passes]
        passing += [each.number for each in known if each.tags.get("slm.variant") == variant and each.tags.get(VERDICT_TAG) == PROMOTE]
        if passing:
            wanted[variant] = max(passing)
    alias = config.promotion.alias
    champion = current.get(alias)
    eligible: dict[str, Judged] = {each.model_id: each for each in report.judged if each.passes and each.model_id in by_id}
    for each in report.judged:  # the incumbent defends its place with its figures, also where no verdict was asked for
        if each.status == "evaluated" and champion is not None and by_id.get(each.model_id) == champion:
            eligible.setdefault(each.model_id, each)
    held = [f"{each.variant} {each.model_id} ({each.decision})" for each in report.candidates if not each.passes]
    ranking = policy.rank(list(eligible.values()), config.promotion.weights)
    if ranking.winner is None:
        return wanted, f"no candidate passed: {', '.join(held)}"
    winner = by_id[ranking.winner.judged.model_id]
    wanted[alias] = winner
    runner_up = by_id[ranking.runner_up.judged.model_id] if ranking.runner_up else None
    if champion is not None and champion != winner:
        wanted[previous_of(alias)] = champion
        runner_up = runner_up or champion
    if runner_up is not None:
        wanted[challenger_of(alias)] = runner_up
    reason = f"profile {config.promotion.profile}: " + "; ".join(
        f"version {by_id[each.judged.model_id]} ({each.judged.variant}) {each.utility:+.3f}{'' if each.on_front else ', dominated'}"
        for each in ranking.ranked
    )
    if ranking.left_out:
        reason += f"; not compared, as figures are missing: {', '.join(ranking.left_out)}"
    if held:
        reason += f"; held: {', '.join(held)}"
    return wanted, reason


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
    return f"mlflow run . -P model={_choice(config)}"


def actor() -> str:
    """Who moves: the user of the tracking server where there is one, else the user of this machine."""
    import os

    return os.environ.get("MLFLOW_TRACKING_USERNAME") or getpass.getuser()


def active_run_id() -> str | None:
    import mlflow

    run = mlflow.active_run()
    return run.info.run_id if run else None


def _choice(config: Config) -> str:
    from hydra.core.hydra_config import HydraConfig

    if HydraConfig.initialized():
        return str(HydraConfig.get().runtime.choices.get("model", config.model.registered_name))
    return config.model.registered_name


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


def _row(name: str, judged: Judged, number: int, version: Version | None, aliases: Mapping[str, int], created: bool) -> Row:
    return Row(
        name=name,
        version=version.number if version else None,
        variant=judged.variant,
        model_id=judged.model_id,
        digest=judged.digest,
        decision=judged.decision,
        aliases=tuple(sorted(alias for alias, target in aliases.items() if target == number)),
        scores=dict(judged.metrics),
        created=created,
        failed_gates=tuple(gate.name for gate in judged.gates if not gate.passed),
    )
