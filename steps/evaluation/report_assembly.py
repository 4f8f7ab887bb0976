"""The report of an evaluation, assembled from what was measured of its candidates."""

import math
from collections.abc import Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime

from steps.config.gates import GatesConfig
from steps.config.root import Config
from steps.core import processes
from steps.evaluation import machine, statistics, verdict
from steps.evaluation.candidate import Candidate
from steps.evaluation.packs import Pack
from steps.evaluation.report import HOLD, CandidateReport, Report, Verdict

# share of items that two variants of one small model answer differently in score
TYPICAL_DISCORDANCE = 0.2


def assemble(
    subjects: Sequence[Candidate], pack: Pack, config: Config, warnings: tuple[str, ...]
) -> Report:
    """The report of candidates that were evaluated, each with its verdict."""
    gates = config.promotion.gates
    candidates = [_candidate(subject) for subject in subjects]
    incumbent = next((candidate for candidate in candidates if candidate.role == "incumbent"), None)
    seed = config.evaluate.seed
    judged = tuple(
        replace(candidate, verdict=verdict.decide(candidate, incumbent, gates, seed))
        for candidate in candidates
    )
    serving = next(
        (subject.description for subject in subjects if subject.description.role == "incumbent"),
        None,
    )
    first = next(
        (subject.description for subject in subjects if subject.description.snapshot_digest), None
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
        machine=machine.describe(),
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
        notes=(*warnings, *_isolation_notes(), *_notes(pack, gates), *_resumed(subjects, pack)),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
    )


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


def _resumed(subjects: Sequence[Candidate], pack: Pack) -> tuple[str, ...]:
    total = len(pack.items)
    return tuple(
        f"{subject.resumed} of {total} answers of {subject.description.name} are from an earlier"
        " process, and so are their latencies"
        for subject in subjects
        if subject.resumed
    )


def _candidate(subject: Candidate) -> CandidateReport:
    described = subject.description
    for name in [name for name, value in subject.metrics.items() if not math.isfinite(value)]:
        subject.notes.append(f"{name} is {subject.metrics.pop(name)} and is left out")
    return CandidateReport(
        uri=described.uri,
        model_id=described.model_id,
        variant=described.variant,
        digest=described.digest,
        role=described.role,
        status="failed" if subject.failure else "evaluated",
        failure=subject.failure,
        metrics=dict(sorted(subject.metrics.items())),
        quality=subject.quality,
        conformance=subject.conformance,
        verdict=Verdict(HOLD),
        licence=described.licence,
        series=subject.series,
        notes=tuple(subject.notes),
    )
