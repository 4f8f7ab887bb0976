"""Prompts of the evidence, asked again where the version is served: does it say the same there?

Greedy answers are not drawn, so equal bytes on an equal machine give equal text but for the last
bits of sums whose order depends on the company of a request. Another processor has other kernels:
one other token, and the rest of the text is another.
"""

import json
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import requests

from steps.config.monitor import RECORDED, MonitorConfig
from steps.core.redaction import redact
from steps.evaluation import machine
from steps.evaluation.report import CandidateReport, ItemResult, Report
from steps.monitoring.figures import Figure, of_recorded
from steps.registry.model_version import Version
from steps.serving.answered import RECORDED_HEADER

LOOPBACK = ("127.0.0.1", "::1", "localhost")
LARGEST_ANSWER = 4_000_000  # bytes that are read of one


class AskingFailedError(Exception):
    """A recorded prompt has no answer; the message is one line."""


class UnreachableError(Exception):
    """Nothing answers at the server's address, or it wants a key; the message is one line."""


@dataclass(frozen=True)
class RecordedAnswer:
    """One prompt of the evidence, asked again.

    Attributes:
        item: its id in the pack.
        equal: whether the answer is the evidence's, letter for letter; None where there is none.
        first_difference: characters that are the same before the first that is not; None where
            equal.
        characters: of the evidence's answer.
        error: why there is no answer.
    """

    item: str
    equal: bool | None
    first_difference: int | None
    characters: int
    error: str | None = None


@dataclass(frozen=True)
class Recorded:
    """What became of the recorded prompts.

    Attributes:
        answers: one a prompt.
        skipped: why none was asked; empty where some were.
        processor: of the machine that serves, where it is known.
        evidence_processor: of the machine that the evidence was made on.
    """

    answers: tuple[RecordedAnswer, ...] = field(default_factory=tuple)
    skipped: str = ""
    processor: str = ""
    evidence_processor: str = ""

    @property
    def equal(self) -> int:
        return sum(answer.equal is True for answer in self.answers)

    @property
    def told(self) -> int:
        """Prompts that were answered."""
        return sum(answer.equal is not None for answer in self.answers)

    @property
    def same_processor(self) -> bool:
        return bool(self.processor) and self.processor == self.evidence_processor

    def figure(self, config: MonitorConfig) -> Figure | None:
        """The count beside its band; None where there is none to make, or it has no band."""
        bands = config.bands
        band = bands.same_answers if self.same_processor else bands.same_answers_elsewhere
        if band is None or not self.told:
            return None
        where = (
            "the evidence's processor"
            if self.same_processor
            else f"{self.processor or 'an unknown processor'}, the evidence is of"
            f" {self.evidence_processor or 'an unknown one'}"
        )
        least = math.ceil(band * self.told / RECORDED)
        return of_recorded(self.equal, self.told, least, self.told, f"on {where}")


def ask(
    config: MonitorConfig,
    version: Version,
    digest: str,
    report: Report,
    candidate: CandidateReport,
    processors: Sequence[str] = (),
) -> Recorded:
    """Ask a running server eight prompts of the evidence, greedily.

    Args:
        config: the server's address and the limits.
        version: that must answer.
        digest: of its bytes.
        report: whole, with its questions.
        candidate: of that report, with its answers.
        processors: of the machines that serve, as the traces have them.
    """
    theirs = str(report.machine.get("processor") or "")
    if config.endpoint is None:
        return Recorded(
            skipped="no recorded prompt was asked: monitor.endpoint names no running server",
            evidence_processor=theirs,
        )
    given = report.pack.get("questions")
    questions = given if isinstance(given, dict) else {}
    items = chosen(candidate.quality.items, questions)
    if not items:
        said = "no recorded prompt was asked: the report holds no questions and answers to ask"
        return Recorded(skipped=said, evidence_processor=theirs)
    answers: list[RecordedAnswer] = []
    for item in items:
        try:
            answers.append(
                _again(config, config.endpoint, version, digest, item, questions[item.id])
            )
        except UnreachableError as error:
            said = redact(str(error))
            if not answers:
                return Recorded(
                    skipped=f"no recorded prompt was asked: {said}", evidence_processor=theirs
                )
            answers.append(RecordedAnswer(item.id, None, None, len(item.answer), said))
    return Recorded(tuple(answers), "", _processor(config.endpoint, processors), theirs)


def chosen(items: Sequence[ItemResult], questions: dict[str, Any]) -> list[ItemResult]:
    """Eight items, evenly over the pack.

    One with a system message is left out: the evaluation puts it into the user's where a model's
    template has no such role.
    """
    able = [
        item
        for item in items
        if item.error is None
        and item.answer
        and item.completion_tokens > 0
        and _without_system(questions.get(item.id))
    ]
    count = min(RECORDED, len(able))
    return [able[(2 * place + 1) * len(able) // (2 * count)] for place in range(count)]


def _without_system(messages: Any) -> bool:
    return (
        isinstance(messages, list)
        and bool(messages)
        and all(isinstance(one, dict) and one.get("role") != "system" for one in messages)
    )


def compared(item: str, recorded: str, answer: str) -> RecordedAnswer:
    """One answer beside the recorded one."""
    if answer == recorded:
        return RecordedAnswer(item, True, None, len(recorded))
    same = next(
        (
            place
            for place, (ours, theirs) in enumerate(zip(recorded, answer, strict=False))
            if ours != theirs
        ),
        min(len(recorded), len(answer)),
    )
    return RecordedAnswer(item, False, same, len(recorded))


def _again(
    config: MonitorConfig,
    endpoint: str,
    version: Version,
    digest: str,
    item: ItemResult,
    messages: Sequence[Any],
) -> RecordedAnswer:
    # an answer that was cut had its whole limit; one token more than another had tells as much
    limit = item.completion_tokens + (item.finish_reason != "length")
    body = {
        "model": f"{version.name}/{version.number}",
        "messages": list(messages),
        "max_tokens": limit,
        "temperature": 0.0,
    }
    try:
        answer = _post(config, f"{endpoint.rstrip('/').removesuffix('/v1')}/v1", body)
        wanted = f"{version.name}/{version.number}-{digest.removeprefix('sha256:')[:12]}"
        if (by := answer.get("system_fingerprint")) != wanted:
            raise AskingFailedError(f"{by!r} answered, expected {wanted!r}")
        text = answer["choices"][0]["message"]["content"] or ""
        if not isinstance(text, str):
            raise AskingFailedError("its answer is not a chat completion")
    except AskingFailedError as error:
        said = redact(str(error))
        return RecordedAnswer(item.id, None, None, len(item.answer), said)
    except (LookupError, TypeError, AttributeError):
        said = "its answer is not a chat completion"
        return RecordedAnswer(item.id, None, None, len(item.answer), said)
    return compared(item.id, item.answer, text)


def _post(config: MonitorConfig, base: str, body: dict[str, Any]) -> Any:
    key = os.environ.get(config.api_key_env, "")
    headers = {RECORDED_HEADER: "true", **({"Authorization": f"Bearer {key}"} if key else {})}
    try:
        with requests.post(
            f"{base}/chat/completions",
            json=body,
            headers=headers,
            timeout=config.timeout,
            allow_redirects=False,  # the key is for this server alone
            stream=True,
        ) as response:
            text = response.raw.read(LARGEST_ANSWER, decode_content=True)
    except (requests.RequestException, OSError, ValueError) as error:
        raise UnreachableError(
            f"monitor.endpoint={config.endpoint!r} does not answer ({type(error).__name__})"
        ) from error
    if response.status_code == 401:
        raise UnreachableError(f"the server wants an API key: export {config.api_key_env}")
    try:
        said = json.loads(text)
    except ValueError as error:
        raise AskingFailedError(f"HTTP {response.status_code}, and no JSON") from error
    if response.status_code != 200:
        told = said.get("error") if isinstance(said, dict) else None
        words = str(told.get("message") if isinstance(told, dict) else told)
        raise AskingFailedError(f"HTTP {response.status_code}: {' '.join(words.split())[:200]}")
    return said


def _processor(endpoint: str, processors: Sequence[str]) -> str:
    """Of the machine that serves: by the traces where all are of one, or this machine's."""
    if urlsplit(endpoint).hostname in LOOPBACK:
        return str(machine.describe()["processor"])
    return processors[0] if len(processors) == 1 else ""
