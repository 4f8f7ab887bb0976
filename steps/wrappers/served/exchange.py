"""One request while it is answered: its prompt's tokens, its jobs, how answers are read."""

import secrets
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from .answer import Answer, AnswerText, Chunks, completion, usage_of
from .backend import Job, Replies
from .call_formats import MARKS
from .conversation import Conversations
from .limits import Limits
from .logprobs import TokenText, logprobs_of
from .reasoning import Piece, ReasoningSplitter
from .request import Request
from .request_limits import fitted, require_embedded, require_short
from .tokenizer import CheckpointTokenizer
from .tool_calls import CallWatch, Offer


@dataclass(frozen=True)
class Exchange:
    """A request with what its answer is read by.

    Args:
        request: checked.
        ids: prompt token ids.
        tags: around reasoning; None where the answer is not split: of a prompt, under a grammar, of
            a model that has none.
        opened: whether the prompt ends within the reasoning.
        offer: tools that the answer may call.
        dropped: tags that are special tokens, which are not content.
    """

    request: Request
    ids: list[int]
    tags: tuple[str, str] | None = None
    opened: bool = False
    offer: Offer = field(default_factory=Offer)
    dropped: frozenset[str] = frozenset()

    @classmethod
    def begin(
        cls,
        request: Request,
        conversations: Conversations,
        tokenizer: CheckpointTokenizer,
        *,
        neutralise: bool,
        longest: int,
    ) -> "Exchange":
        """Turn a request into tokens.

        Args:
            request: checked.
            conversations: renders messages.
            tokenizer: of the checkpoint.
            neutralise: take text in messages that spells the template's structure as plain text.
            longest: characters that a text may have; a longer one is refused before it is
                tokenised.

        Raises:
            MlflowException: the template does not take the conversation, or what belongs to it; the
                text is too long.
        """
        if request.messages is None:
            require_short("prompt", len(request.prompt or ""), longest)
            return cls(request, tokenizer.encode_prompt(request.prompt or ""))
        given = request.messages, request.tools, request.template_kwargs
        segments = conversations.segments(*given) if neutralise else [conversations.render(*given)]
        require_short("messages", sum(map(len, segments)), longest)
        special, tags = (
            conversations.template.special_texts,
            conversations.capabilities.reasoning_tags,
        )
        opened = conversations.opens_reasoning(segments[-1])
        if request.forced:  # a call stands behind the reasoning, of which the grammar allows none
            segments = [*segments, f"{tags[1]}\n\n"] if opened and tags else segments
            opened, tags = False, None
        ids = tokenizer.encode_segments(segments)
        if request.grammar is not None and not request.forced:  # which allows no tags
            return cls(request, ids)
        earlier = sum(len(message.get("tool_calls", ())) for message in request.messages)
        schemas = {
            tool["function"]["name"]: tool["function"].get("parameters") for tool in request.tools
        }
        kept = frozenset(MARKS & special) if schemas else frozenset()
        return cls(
            request,
            ids,
            tags,
            opened,
            Offer(schemas, conversations.capabilities.tool_calls, earlier, kept, request.parallel),
            frozenset({*(tags or ())} & special),
        )

    def text(self, tokenizer: CheckpointTokenizer) -> AnswerText:
        """Make what assembles an answer."""
        splitter = (
            partial(ReasoningSplitter, *self.tags, opened=self.opened)
            if self.tags
            else ReasoningSplitter
        )
        decoder = partial(tokenizer.decoder, self.offer.kept | self.dropped)
        return AnswerText(decoder, self.request.stop, splitter, self.dropped)

    def jobs(
        self,
        tokenizer: CheckpointTokenizer,
        limits: Limits,
        out: Replies,
        *,
        deadline: float,
        first: int = 0,
        streams: bool = False,
    ) -> list[Job]:
        """Make a job for each choice; greedy choices are alike, so that one is computed for all of
        them unless they are streamed.

        Args:
            tokenizer: of the checkpoint.
            limits: of the model.
            out: where replies go.
            deadline: when the answers' time is up, on the monotonic clock.
            first: index of the first job.
            streams: send text as it becomes certain.

        Raises:
            MlflowException: the prompt, or what is asked for, does not fit the model.
        """
        require_embedded(self.ids, self.request, limits)
        request = fitted(self.request, len(self.ids), limits)
        seed = request.seed if request.seed is not None else secrets.randbelow(2**31 - 64)
        return [
            Job(
                self.ids,
                request,
                (seed + choice) % 2**31,
                self.text(tokenizer),
                out,
                deadline,
                index=first + choice,
                streams=streams,
            )
            for choice in range(request.n if streams or not request.greedy else 1)
        ]

    def result(self, model: str, answers: list[Answer]) -> Any:
        """What ``predict`` returns for the request."""
        if self.request.messages is not None:
            return completion(model, len(self.ids), answers, offer=self.offer)
        return answers[0].text if self.request.n == 1 else [answer.text for answer in answers]


def with_logprobs(answer: Answer, job: Job, text: TokenText) -> Answer:
    """The answer with the log probabilities of its tokens, where the request asks for them."""
    if job.request.logprobs is None:
        return answer
    return replace(answer, logprobs=logprobs_of(job.logprobs[: answer.told], text))


class StreamedExchange:
    """Shapes what a stream yields: strings for a prompt, chunks for messages.

    Args:
        exchange: with its request.
        model: public name.
        jobs: answers that are streamed side by side.
        text: of one token.
    """

    def __init__(
        self, exchange: Exchange, model: str, jobs: Sequence[Job], text: TokenText
    ) -> None:
        self._exchange, self._chunks, self._jobs = exchange, Chunks(model), jobs
        self._chat = exchange.request.messages is not None
        self._watches = [CallWatch(exchange.offer) for _ in jobs]
        self._text = text
        self._told = [0] * len(jobs)  # tokens whose log probabilities were sent
        self._due = [0] * len(jobs)  # tokens of the text so far

    def begin(self) -> Iterator[Any]:
        """What comes before any text."""
        if self._chat:
            yield from (
                self._chunks.chunk(index, role="assistant", content="")
                for index in range(len(self._watches))
            )

    def take(self, index: int, piece: Piece) -> Iterator[Any]:
        """What certain text of a choice amounts to."""
        if not self._chat:
            yield piece.content
            return
        self._due[index] += piece.tokens
        content = self._watches[index].take(piece.content) if piece.content else ""
        if piece.reasoning:
            told = {} if content else self._logprobs(index)
            yield self._chunks.chunk(index, **told, reasoning_content=piece.reasoning)
        if content:
            yield self._chunks.chunk(index, **self._logprobs(index), content=content)

    def end(self, index: int, answer: Answer) -> Iterator[Any]:
        """What closes a choice."""
        if not self._chat:
            return
        self._due[index] = answer.told
        content, calls = self._watches[index].finish()
        if content:
            told = {} if calls else self._logprobs(index)
            yield self._chunks.chunk(index, **told, content=content)
        if calls:
            numbered = [{"index": number, **call} for number, call in enumerate(calls)]
            yield self._chunks.chunk(index, **self._logprobs(index), tool_calls=numbered)
        reason = "tool_calls" if calls and answer.finish_reason == "stop" else answer.finish_reason
        rest = self._logprobs(index) if self._told[index] < self._due[index] else {}
        yield self._chunks.chunk(index, **rest, finish_reason=reason)

    def close(self, answers: list[Answer]) -> Iterator[Any]:
        """What closes the stream: the token counts, where they are asked for, and of a prompt why
        its answer ended, which its strings do not say.
        """
        if not self._exchange.request.include_usage:
            return
        tokens = len(self._exchange.ids)
        if self._chat:
            yield self._chunks.usage(tokens, answers)
        else:
            reason = answers[0].finish_reason
            yield {"finish_reason": reason, "usage": usage_of(tokens, answers)}

    def _logprobs(self, index: int) -> dict[str, Any]:
        """Log probabilities that were not sent yet, of a choice's tokens in the text so far."""
        job, due = self._jobs[index], self._due[index]
        if job.request.logprobs is None:
            return {}
        told, self._told[index] = job.logprobs[self._told[index] : due], due
        return {"logprobs": logprobs_of(told, self._text)}
