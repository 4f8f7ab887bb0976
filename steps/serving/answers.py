"""From a request to the chunks of its answer, and from chunks to a whole completion."""

import json
import secrets
import time
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

from steps.evaluation.check_functions import fold
from steps.evaluation.refusals import refuses
from steps.serving.answered import Answered, AnswerFigures, nowhere
from steps.serving.deployment import TEXTS, Deployment
from steps.serving.errors import ApiError
from steps.serving.metrics import AnswerTimes, Metrics
from steps.serving.routes import Choice

ANSWERED, SHADOW = "answered", "shadow"
TIMEOUT = "timeout"  # code of the error of an answer that came too late


@dataclass(frozen=True)
class Question:
    """What is asked, and of whom.

    Attributes:
        choice: the version that answers.
        row: of the chat contract, without what only the server reads.
        deadline: on the monotonic clock.
        usage: whether the client wants the token counts at the end of a stream.
        trace: told of the answer once it is whole, or will never be; must return at once.
    """

    choice: Choice
    row: Mapping[str, Any]
    deadline: float
    usage: bool = False
    trace: Callable[[Answered], None] = nowhere

    @property
    def fingerprint(self) -> str:
        """``system_fingerprint``: the version and the beginning of its digest."""
        version = self.choice.deployment.version
        return f"{version.name}/{version.number}-{version.digest.removeprefix('sha256:')[:12]}"

    @property
    def counted(self) -> dict[str, Any]:
        """The row, with the token counts at the end."""
        return {**self.row, "stream": True, "stream_options": {"include_usage": True}}


async def chat_chunks(question: Question, metrics: Metrics) -> AsyncGenerator[dict[str, Any]]:
    """The chunks of a chat answer, the last one with the token counts.

    Raises:
        ApiError: what a client is told instead; after some chunks, too.
    """
    async for chunk in _measured(question, metrics, question.choice.deployment, ANSWERED):
        yield {
            **chunk,
            "model": question.choice.route.name,
            "system_fingerprint": question.fingerprint,
            "choices": [
                {**choice, "logprobs": choice.get("logprobs")} for choice in chunk["choices"]
            ],
        }


async def shadow(question: Question, deployment: Deployment, metrics: Metrics) -> None:
    """Ask a version whose answer nobody gets, unless others wait for it."""
    asked = _prompted if "prompt" in question.row else _measured
    if deployment.admission.waiting or deployment.admission.active >= deployment.admission.capacity:
        return
    try:
        async for _ in asked(question, metrics, deployment, SHADOW):
            pass
    except ApiError:
        return  # is in the metrics


async def _measured(
    question: Question, metrics: Metrics, deployment: Deployment, role: str
) -> AsyncGenerator[dict[str, Any]]:
    times = metrics.answering(deployment.version, question.choice.route.alias, role)
    outcome, usage, text, reasons = "cancelled", dict[str, Any](), "", set[str]()
    busy = _company(deployment)
    try:
        async with aclosing(deployment.events(question.counted, question.deadline)) as events:
            async for chunk in events:
                busy = max(busy, deployment.admission.active)
                usage = chunk.get("usage") or usage
                for choice in chunk["choices"]:
                    delta = choice["delta"]
                    if any(delta.get(key) for key in TEXTS):
                        times.text()
                    if choice["index"] == 0:
                        text += delta.get("content") or ""
                    if choice.get("finish_reason"):
                        reasons.add(choice["finish_reason"])
                yield chunk
        outcome = "ok"
        _judge(question.row, text, reasons, times)
    except ApiError as error:
        outcome = _outcome(error, times)
        raise
    finally:
        _end(question, deployment, role, times, outcome, usage, text, reasons, busy)


def _outcome(error: ApiError, times: AnswerTimes) -> str:
    """What became of an answer: one that was under way when its time was up was too long, which is
    its client's choice.
    """
    late = error.code == TIMEOUT and times.first_token_s is not None
    return TIMEOUT if late else str(error.status)


def _company(deployment: Deployment) -> int:
    """Requests that a version has when one more arrives, with this one."""
    return deployment.admission.active + deployment.admission.waiting + 1


def _end(
    question: Question,
    deployment: Deployment,
    role: str,
    times: AnswerTimes,
    outcome: str,
    usage: Mapping[str, Any],
    text: str,
    reasons: set[str],
    busy: int,
) -> None:
    """Count an answer, and offer it as a trace."""
    prompt_tokens = int(usage.get("prompt_tokens", 0))
    tokens = int(usage.get("completion_tokens", 0))
    times.ended(outcome, prompt_tokens=prompt_tokens, tokens=tokens)
    figures = AnswerFigures(
        outcome,
        times.seconds,
        times.first_token_s,
        times.inter_token_s,
        prompt_tokens,
        tokens,
        ", ".join(sorted(reasons)) or None,
        times.refusal,
        times.valid,
        busy,
    )
    alias = question.choice.route.alias
    question.trace(
        Answered(deployment.version, alias, role, times.started, figures, question.row, text)
    )


def _judge(row: Mapping[str, Any], text: str, reasons: set[str], times: Any) -> None:
    """Count refusals, and answers that are not the JSON that was asked for."""
    wanted = row.get("response_format")
    kind = wanted.get("type") if isinstance(wanted, Mapping) else None
    if kind in ("json_object", "json_schema"):
        if reasons != {"stop"}:  # cut by the limit that the client chose, or a call of a tool
            return
        try:
            json.loads(text)
            times.formatted(True)
        except ValueError:
            times.formatted(False)
    elif text:
        times.refused(refuses(fold(text)))


def whole(chunks: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """The chat completion that chunks amount to."""
    choices: dict[int, dict[str, Any]] = {}
    head: Mapping[str, Any] = {}
    usage: Any = None
    for chunk in chunks:
        head = head or chunk
        usage = chunk.get("usage") or usage
        for part in chunk["choices"]:
            _merge(choices.setdefault(part["index"], _empty(part["index"])), part)
    for choice in choices.values():
        message = choice["message"]
        if message.get("tool_calls") and not message["content"]:
            message["content"] = None
    return {
        "id": head["id"],
        "object": "chat.completion",
        "created": head["created"],
        "model": head["model"],
        "system_fingerprint": head["system_fingerprint"],
        "choices": [choices[index] for index in sorted(choices)],
        "usage": usage,
    }


def _empty(index: int) -> dict[str, Any]:
    return {
        "index": index,
        "message": {"role": "assistant", "content": "", "refusal": None},
        "logprobs": None,
        "finish_reason": None,
    }


def _merge(choice: dict[str, Any], part: Mapping[str, Any]) -> None:
    message, delta = choice["message"], part["delta"]
    message["content"] += delta.get("content") or ""
    if delta.get("reasoning_content"):
        before = message.get("reasoning_content", "")
        message["reasoning_content"] = before + delta["reasoning_content"]
    for call in delta.get("tool_calls") or ():
        plain = {key: value for key, value in call.items() if key != "index"}
        message.setdefault("tool_calls", []).append(plain)
    told = part.get("logprobs")
    if told:
        kept = choice["logprobs"] or {key: [] for key in told}
        choice["logprobs"] = {key: [*kept[key], *(told[key] or [])] for key in kept}
    choice["finish_reason"] = part.get("finish_reason") or choice["finish_reason"]


# --- the prompt contract


@dataclass(frozen=True)
class PromptAnswer:
    """What one prompt was answered with, or a part of it."""

    text: str
    finish_reason: str | None = None
    usage: Mapping[str, Any] | None = None


def prompt_parts(question: Question, metrics: Metrics) -> AsyncGenerator[PromptAnswer]:
    """The text of a prompt's answer as it comes; the last part has its end and its token counts."""
    return _prompted(question, metrics, question.choice.deployment, ANSWERED)


async def _prompted(
    question: Question, metrics: Metrics, deployment: Deployment, role: str
) -> AsyncGenerator[PromptAnswer]:
    times = metrics.answering(deployment.version, question.choice.route.alias, role)
    outcome, last, text = "cancelled", PromptAnswer("", "stop"), ""
    busy = _company(deployment)
    try:
        async with aclosing(deployment.events(question.counted, question.deadline)) as events:
            async for part in events:
                busy = max(busy, deployment.admission.active)
                if isinstance(part, str):
                    if part:
                        times.text()
                        text += part
                        yield PromptAnswer(part)
                else:
                    last = PromptAnswer("", part["finish_reason"], part["usage"])
        outcome = "ok"
        yield last
    except ApiError as error:
        outcome = _outcome(error, times)
        raise
    finally:
        reasons = {last.finish_reason or ""} if outcome == "ok" else set[str]()
        usage = last.usage or {}
        _end(question, deployment, role, times, outcome, usage, text, reasons, busy)


def completion_head(question: Question) -> dict[str, Any]:
    """What all parts of a text completion share."""
    return {
        "id": f"cmpl-{secrets.token_hex(16)}",
        "object": "text_completion",
        "created": int(time.time()),
        "model": question.choice.route.name,
        "system_fingerprint": question.fingerprint,
    }


def text_choice(index: int, answer: PromptAnswer) -> dict[str, Any]:
    """One choice of a text completion."""
    return {
        "index": index,
        "text": answer.text,
        "logprobs": None,
        "finish_reason": answer.finish_reason,
    }


def summed(usages: Sequence[Mapping[str, Any] | None]) -> dict[str, int] | None:
    """Token counts of several answers; None where one of them has none."""
    known = [usage for usage in usages if usage]
    if len(known) < len(usages):
        return None
    keys = ("prompt_tokens", "completion_tokens", "total_tokens")
    return {key: sum(int(usage[key]) for usage in known) for key in keys}
