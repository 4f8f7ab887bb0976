"""The quality pass: answers against checks, and a score a skill."""

import re
from collections.abc import Sequence

from steps.evaluation import statistics
from steps.evaluation.answers import Answer
from steps.evaluation.metrics import QUALITY_HIGH, QUALITY_LOW, QUALITY_SCORE
from steps.evaluation.packs import Pack
from steps.evaluation.report import ItemResult, Quality, SkillScore


def score(pack: Pack, answers: Sequence[Answer], concurrent_items: int = 1) -> Quality:
    """Apply each item's checks to its answer; the answers were given ``concurrent_items`` at
    once.
    """
    items = {item.id: item for item in pack.items}
    results = []
    for answer in answers:
        item = items[answer.item]
        value, checks = item.score(answer.text) if answer.error is None else (0.0, ())
        results.append(
            ItemResult(
                id=item.id,
                tags=item.tags,
                answer=answer.text,
                score=value,
                checks=checks,
                finish_reason=answer.finish_reason,
                completion_tokens=answer.completion_tokens,
                latency_s=answer.latency_s,
                error=answer.error,
            )
        )
    skills: dict[str, list[float]] = {}
    for result in results:
        skills.setdefault(result.tags[0], []).append(result.score)
    by_skill = {}
    for skill, scores in skills.items():
        interval = statistics.proportion(scores)
        by_skill[skill] = SkillScore(interval.value, interval.low, interval.high, len(scores))
    return Quality(by_skill, tuple(results), concurrent_items)


def metrics(quality: Quality) -> dict[str, float]:
    """Flat metrics of a quality pass; latencies in seconds, of one item among those that were asked
    at once.
    """
    scores = [item.score for item in quality.items]
    interval = statistics.proportion(scores)
    latencies = [item.latency_s for item in quality.items if item.error is None]
    figures = {
        QUALITY_SCORE: interval.value,
        QUALITY_LOW: interval.low,
        QUALITY_HIGH: interval.high,
        "quality/items": float(len(scores)),
        "quality/errors": float(sum(item.error is not None for item in quality.items)),
    }
    if latencies:
        figures["quality/latency_p50_s"] = statistics.percentile(latencies, 50)
        figures["quality/latency_p95_s"] = statistics.percentile(latencies, 95)
    for skill, skill_score in quality.by_skill.items():
        figures[f"quality/skill/{re.sub(r'[^a-z0-9_]+', '_', skill.lower())}"] = skill_score.score
    return figures
