"""What a run did to the registry, or would do: for the closing table and ``promotion.json``."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import mlflow
from mlflow.exceptions import MlflowException

from steps.core import tags
from steps.core.errors import StepError
from steps.core.redaction import redact
from steps.evaluation.report import CandidateReport
from steps.registry.model_version import Version
from steps.registry.record import Move
from steps.registry.retries import first_line

log = logging.getLogger(__name__)

SCHEMA = "slm-promote/promotion/1"
ARTIFACT = "promotion.json"


class RefusedError(StepError):
    """The policy, the evidence or the canary does not allow the move; nothing was changed."""


class WithdrawnError(RefusedError):
    """Whoever asked for the move has withdrawn it; nothing was changed."""


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
    canary: str  # "passed", what failed, or "" where none was needed

    @property
    def uri(self) -> str:
        return f"models:/{self.name}/{self.version}" if self.version else f"models:/{self.model_id}"


@dataclass(frozen=True)
class Promotion:
    """Versions and moves of one run."""

    kind: str  # register, promote or rollback
    name: str
    report_uri: str | None
    evidence_digest: str | None
    profile: str
    alias: str
    rows: tuple[Row, ...]
    moves: tuple[Move, ...]
    reason: str
    entry: int | None  # number in the journal; None where nothing moved
    forced: bool
    dry_run: bool
    isolation_missing: tuple[str, ...] = ()  # what the canaries were not kept from, one clause each
    # version that the policy chose and that waits for approvals, so the alias stays where it is
    waiting: int | None = None
    # of the entry: kept on the run, it shows whether the history was rewritten as a whole
    entry_digest: str | None = None

    def to_json(self) -> dict[str, Any]:
        """As ``promotion.json`` holds it."""
        plain = dict(vars(self))
        plain["rows"] = [
            {**vars(row), "aliases": list(row.aliases), "scores": dict(row.scores), "uri": row.uri}
            for row in self.rows
        ]
        plain["moves"] = [vars(move) for move in self.moves]
        plain["isolation_missing"] = list(self.isolation_missing)
        return {"schema": SCHEMA, **plain}


def row(
    name: str,
    candidate: CandidateReport,
    number: int,
    aliases: Mapping[str, int | None],
    *,
    created: bool = False,
    exists: bool,
    canary: str,
) -> Row:
    """The row of a version that a report is about."""
    return Row(
        name=name,
        version=number if exists else None,
        variant=candidate.variant,
        model_id=candidate.model_id,
        digest=candidate.digest,
        decision=candidate.verdict.decision,
        aliases=tuple(sorted(alias for alias, target in aliases.items() if target == number)),
        scores=dict(candidate.metrics),
        created=created,
        failed_gates=tuple(gate.name for gate in candidate.failed_gates),
        canary=canary,
    )


def unevaluated_row(version: Version, aliases: Mapping[str, int | None], canary: str) -> Row:
    """The row of a version without evidence."""
    return Row(
        name=version.name,
        version=version.number,
        variant=version.tags.get(tags.VARIANT, "unknown"),
        model_id=version.model_id or "",
        digest=version.tags.get(tags.DIGEST, ""),
        decision=version.tags.get(tags.VERDICT, "not judged"),
        aliases=tuple(
            sorted(alias for alias, target in aliases.items() if target == version.number)
        ),
        scores={},
        created=False,
        failed_gates=(),
        canary=canary,
    )


def keep(promotion: Promotion) -> None:
    """Put ``promotion.json`` on the active run; a failure of that does not undo the move."""
    if active_run_id() is None:
        return
    try:
        mlflow.log_dict(promotion.to_json(), ARTIFACT)
    except (MlflowException, OSError) as error:
        log.warning(
            "%s could not be put on the run (%s); the aliases are as shown, see `history`",
            ARTIFACT,
            redact(first_line(error)),
        )


def active_run_id() -> str | None:
    """The MLflow run that this process writes to."""
    run = mlflow.active_run()
    return str(run.info.run_id) if run else None
