"""The report of an evaluation, assembled from what was measured of its candidates."""

import math
from collections.abc import Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime
from typing import Any

from steps.config.gates import GatesConfig
from steps.config.root import Config
from steps.core import processes
from steps.evaluation import machine, statistics, verdict
from steps.evaluation.candidate import Candidate
from steps.evaluation.other_load import OtherLoad
from steps.evaluation.packs import Pack
from steps.evaluation.report import HOLD, CandidateReport, Report, Verdict

# share of items that two variants of one small model answer differently in score
TYPICAL_DISCORDANCE = 0.2


def assemble(
    candidates: Sequence[Candidate],
    pack: Pack,
    config: Config,
    warnings: tuple[str, ...],
    load: OtherLoad | None = None,
) -> Report:
    """The report of candidates that were evaluated, each with its verdict.

    Args:
        load: what else the machine did while they were timed; None where that is not known.
    """
    gates = config.promotion.gates
    reports = [_candidate(candidate) for candidate in candidates]
    incumbent = next((report for report in reports if report.role == "incumbent"), None)
    seed = config.evaluate.seed
    busy = load.words if load else ""
    judged = tuple(
        replace(report, verdict=verdict.decide(report, incumbent, gates, seed, busy=busy))
        for report in reports
    )
    serving = next(
        (
            candidate.description
            for candidate in candidates
            if candidate.description.role == "incumbent"
        ),
        None,
    )
    first = next(
        (
            candidate.description
            for candidate in candidates
            if candidate.description.snapshot_digest
        ),
        None,
    )
    return Report(
        registered_name=config.model.registered_name,
        snapshot=(
            None
            if first is None
            else {
                "digest": first.snapshot_digest,
                "repo": first.source,
                "revision": first.snapshot_revision,
                "licence": first.licence,
            }
        ),
        incumbent=(
            None
            if serving is None
            else {"uri": serving.uri, "model_id": serving.model_id, "version": serving.version}
        ),
        seed=seed,
        machine=machine.describe() | _load(load),
        pack={
            "name": pack.name,
            "version": pack.version,
            "digest": pack.digest,
            "items": len(pack.items),
            "licence": pack.licence,
            "contamination": pack.contamination,
            "questions": {
                item.id: [dict(message) for message in item.messages] for item in pack.items
            },
        },
        policy={"gates": asdict(gates)},
        candidates=judged,
        isolation={"wanted": config.evaluate.isolation.value, "missing": list(processes.missing())},
        notes=(*warnings, *_isolation_notes(), *_notes(pack, gates), *_resumed(candidates, pack)),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def _load(load: OtherLoad | None) -> dict[str, Any]:
    return {"load": asdict(load) | {"words": load.words}} if load else {}


def _notes(pack: Pack, gates: GatesConfig) -> tuple[str, ...]:
    """What a reader must know before trusting the verdicts."""
    margin, confidence = gates.relative.quality_margin, gates.relative.confidence
    needed = statistics.items_needed(TYPICAL_DISCORDANCE, margin, confidence)
    if len(pack.items) >= needed:
        return ()
    said = (
        f"{len(pack.items)} items are too few to stake a promotion on: about {needed} are needed to"
        " find two equal models"
    )
    return (f"{said} within {margin:g} of each other, if they differ on a fifth of the items.",)


def _isolation_notes() -> tuple[str, ...]:
    missing = "; ".join(processes.missing())
    said = f"the candidates were loaded with less isolation than there could be ({missing})"
    return (said,) if missing else ()


def _resumed(candidates: Sequence[Candidate], pack: Pack) -> tuple[str, ...]:
    total = len(pack.items)
    return tuple(
        f"{candidate.resumed} of {total} answers of {candidate.description.name} are from an"
        " earlier process, and so are their latencies"
        for candidate in candidates
        if candidate.resumed
    )


def _candidate(candidate: Candidate) -> CandidateReport:
    described = candidate.description
    for name in [name for name, value in candidate.metrics.items() if not math.isfinite(value)]:
        candidate.notes.append(f"{name} is {candidate.metrics.pop(name)} and is left out")
    return CandidateReport(
        uri=described.uri,
        model_id=described.model_id,
        variant=described.variant,
        digest=described.digest,
        role=described.role,
        status="failed" if candidate.failure else "evaluated",
        failure=candidate.failure,
        metrics=dict(sorted(candidate.metrics.items())),
        quality=candidate.quality,
        conformance=candidate.conformance,
        verdict=Verdict(HOLD),
        licence=described.licence,
        series=candidate.series,
        notes=tuple(candidate.notes),
    )
