"""The endpoints that answer: chat and text completions."""

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from typing import Any

from fastapi import Request
from fastapi.responses import Response

from steps.config.serve import ServeConfig
from steps.serving import answers, request_body
from steps.serving.answered import RECORDED_HEADER, Answered, nowhere
from steps.serving.answers import PromptAnswer, Question
from steps.serving.connection import collected, together, while_connected
from steps.serving.errors import ApiError, invalid
from steps.serving.event_stream import DONE, chat_events, event, event_stream
from steps.serving.json_response import json_response
from steps.serving.keys import ApiKeys
from steps.serving.metrics import Metrics
from steps.serving.routes import Routes

READ_SECONDS = 5.0  # that a client may still read when the time of its request is up


class Completions:
    """``/v1/chat/completions`` and ``/v1/completions``.

    Args:
        config: limits.
        routes: what is served.
        metrics: told of each request.
        keys: who may ask.
        trace: told of each request that was answered.
    """

    def __init__(
        self,
        config: ServeConfig,
        routes: Routes,
        metrics: Metrics,
        keys: ApiKeys,
        trace: Callable[[Answered], None] = nowhere,
    ) -> None:
        self._config, self._routes, self._metrics, self._keys = config, routes, metrics, keys
        self._trace = trace
        self._shadows: set[asyncio.Task[None]] = set()

    async def chat(self, request: Request) -> Response:
        """Answer a conversation, whole or as server-sent events."""
        arrived = time.monotonic()
        body = await self._body(request)
        stream, usage = request_body.streams(body), request_body.wants_usage(body)
        if "prompt" in body:
            raise ApiError(
                400,
                "prompt: expected messages; a prompt is asked for at /v1/completions",
                code="invalid_value",
                param="prompt",
            )
        if body.get("messages") is None:
            raise invalid(
                "messages",
                None,
                "a list with at least one message",
                request_body.misspelt("messages", body),
            )
        question = self._question(body, arrived, usage, self._trace_of(request))
        chunks = answers.chat_chunks(question, self._metrics)
        if stream:
            return await event_stream(request, chat_events(chunks, usage), self._read_by(arrived))
        return json_response(answers.whole(await while_connected(request, collected(chunks))))

    async def completion(self, request: Request) -> Response:
        """Answer prompts, which are templated already, whole or as server-sent events."""
        arrived = time.monotonic()
        body = await self._body(request)
        stream, usage = request_body.streams(body), request_body.wants_usage(body)
        prompts, many = request_body.prompts_of(body)
        if "messages" in body:
            raise ApiError(
                400,
                "messages: expected prompt; messages are asked for at /v1/chat/completions",
                code="invalid_value",
                param="messages",
            )
        row = {key: value for key, value in body.items() if key != "model"}
        # one version answers all of them
        choice = self._routes.choose(body.get("model"), {**row, "prompt": prompts})
        deadline = arrived + self._config.request_timeout
        questions = [
            Question(
                choice,
                request_body.seeded({**row, "prompt": prompt}, at),
                deadline,
                usage,
                self._trace_of(request),
            )
            for prompt in prompts
            for at in range(many)
        ]
        for question in questions:
            self._ask_shadows(question)
        head = answers.completion_head(questions[0])
        if stream:
            events = self._text_events(head, questions, usage)
            return await event_stream(request, events, self._read_by(arrived))
        asked = [collected(answers.prompt_parts(question, self._metrics)) for question in questions]
        every: list[list[PromptAnswer]] = await while_connected(request, together(asked))
        found = [
            PromptAnswer("".join(part.text for part in parts), *_end_of(parts)) for parts in every
        ]
        choices = [answers.text_choice(index, answer) for index, answer in enumerate(found)]
        total = answers.summed([answer.usage for answer in found])
        return json_response({**head, "choices": choices, "usage": total})

    async def _text_events(
        self, head: Mapping[str, Any], questions: list[Question], usage: bool
    ) -> AsyncGenerator[bytes]:
        """The answers one after another: their parts do not mix."""
        usages: list[Mapping[str, Any] | None] = []
        empty: dict[str, Any] = {"usage": None} if usage else {}
        with questions[0].choice.deployment.held():
            for index, question in enumerate(questions):
                async with aclosing(answers.prompt_parts(question, self._metrics)) as parts:
                    async for part in parts:
                        if part.finish_reason is not None:
                            usages.append(part.usage)
                        choices = [answers.text_choice(index, part)]
                        yield event({**head, "choices": choices, **empty})
        if usage:
            yield event({**head, "choices": [], "usage": answers.summed(usages)})
        yield DONE

    def _read_by(self, arrived: float) -> float:
        """When a client must have read its stream, on the monotonic clock."""
        return arrived + self._config.request_timeout + READ_SECONDS

    async def _body(self, request: Request) -> dict[str, Any]:
        self._keys.check(request.headers.get("authorization"))
        try:
            async with asyncio.timeout(self._config.request_timeout):
                body = await request_body.body_of(request, self._config.max_body_bytes)
        except TimeoutError:
            raise ApiError(
                408, "the body did not come within serve.request_timeout", code="timeout"
            ) from None
        request_body.limit_tokens(body, self._config.max_tokens)
        return body

    def _trace_of(self, request: Request) -> Callable[[Answered], None]:
        return nowhere if RECORDED_HEADER in request.headers else self._trace

    def _question(
        self,
        body: Mapping[str, Any],
        arrived: float,
        usage: bool,
        trace: Callable[[Answered], None],
    ) -> Question:
        row = {key: value for key, value in body.items() if key != "model"}
        choice = self._routes.choose(body.get("model"), row)
        until = arrived + self._config.request_timeout
        question = Question(choice, row, until, usage, trace)
        self._ask_shadows(question)
        return question

    def _ask_shadows(self, question: Question) -> None:
        for deployment in question.choice.shadows:
            task = asyncio.create_task(answers.shadow(question, deployment, self._metrics))
            self._shadows.add(task)
            task.add_done_callback(self._shadows.discard)


def _end_of(parts: list[PromptAnswer]) -> tuple[str | None, Mapping[str, Any] | None]:
    return parts[-1].finish_reason, parts[-1].usage
