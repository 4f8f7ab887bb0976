"""The next token of an answer from the scores of all tokens, for both variants."""

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from .backend import Job

Scores = np.ndarray[Any, np.dtype[np.float32]]  # (vocabulary,), logits of the next token

# of a sorted vocabulary, enough for nearly every top_p
LIKELIEST = 1024


class TokenMask(Protocol):
    """What tokens a grammar allows next."""

    def apply(self, scores: Scores) -> None:
        """Set the scores of tokens that are not allowed to minus infinity."""

    def accept(self, token: int) -> None:
        """Take the token that was chosen."""


@dataclass(frozen=True)
class TokenLogprobs:
    """What the model thought of a token: natural logarithms of probabilities, before any setting of
    the request changed its scores.

    Attributes:
        token: its id.
        logprob: of the token that was chosen.
        top: the likeliest tokens and theirs, falling; as many as the request asked for.
    """

    token: int
    logprob: float
    top: tuple[tuple[int, float], ...]


class Sampler:
    """Chooses the tokens of one answer, with the settings and the random stream of its request.

    The order is that of transformers' ``generate``: repetition penalty, frequency and presence
    penalties, bias, least length, grammar, temperature, ``top_k``, ``top_p``.

    Args:
        job: with its prompt, request and seed.
        eos: token ids that end an answer.
        mask: of the request's grammar.
    """

    def __init__(self, job: Job, eos: Collection[int], mask: TokenMask | None = None) -> None:
        request = job.request
        self._job, self._request, self._mask = job, request, mask
        self._eos = list(eos) if request.min_tokens else []
        self._counts: Counter[int] = Counter()  # of generated tokens
        self._produced = 0
        self._seen = set(job.ids) if request.repetition_penalty != 1 else set()
        self._bias = (
            np.fromiter(request.logit_bias, np.int64),
            np.fromiter(request.logit_bias.values(), np.float32),
        )
        self._random = None if request.greedy else np.random.default_rng(job.seed)

    def choose(self, scores: Scores) -> int:
        """Choose the next token.

        Args:
            scores: of the model; they are changed.
        """
        request = self._request
        raw = scores.copy() if request.logprobs is not None else None
        self._process(scores)
        token = int(scores.argmax()) if self._random is None else self._drawn(scores)
        self._produced += 1
        if request.penalised:
            self._counts[token] += 1
        if request.repetition_penalty != 1:
            self._seen.add(token)
        if self._mask is not None:
            self._mask.accept(token)
        if raw is not None:
            self._job.logprobs.append(_logprobs(raw, token, request.logprobs or 0))
        return token

    def _process(self, scores: Scores) -> None:
        request = self._request
        if self._seen:
            seen = np.fromiter(self._seen, np.int64)
            values = scores[seen]
            penalty = np.float32(request.repetition_penalty)
            scores[seen] = np.where(values < 0, values * penalty, values / penalty)
        if self._counts:
            scores[list(self._counts)] -= np.asarray(request.penalties(self._counts), np.float32)
        if request.logit_bias:
            scores[self._bias[0]] += self._bias[1]
        if self._eos and self._produced < request.min_tokens:
            scores[self._eos] = -np.inf
        if self._mask is not None:
            self._mask.apply(scores)

    def _drawn(self, scores: Scores) -> int:
        request = self._request
        assert self._random is not None
        heated = scores.astype(np.float64) / request.temperature
        if 0 < request.top_k < len(heated):
            least = np.partition(heated, -request.top_k)[-request.top_k]
            tokens = np.flatnonzero(heated >= least)
        else:
            tokens = np.flatnonzero(heated > -np.inf)
        kept = heated[tokens]
        weights = np.exp(kept - kept.max())
        weights /= weights.sum()
        if request.top_p < 1:
            nucleus = _nucleus(weights, request.top_p)
            tokens, weights = tokens[nucleus], weights[nucleus]
        sums = weights.cumsum()
        place = int(np.searchsorted(sums, self._random.random() * sums[-1], side="right"))
        return int(tokens[min(place, len(tokens) - 1)])


def _nucleus(weights: Any, top_p: float) -> Any:
    """Places of the likeliest weights, falling, whose sum first reaches ``top_p``."""
    for count in (LIKELIEST, len(weights)):
        if count < len(weights):
            places = np.argpartition(weights, -count)[-count:]
        else:
            places = np.arange(len(weights))
        places = places[np.argsort(-weights[places], kind="stable")]
        sums = weights[places].cumsum()
        if sums[-1] >= top_p or count >= len(weights):
            break
    return places[: int(np.searchsorted(sums, top_p)) + 1]


def _logprobs(scores: Scores, token: int, count: int) -> TokenLogprobs:
    values = scores.astype(np.float64)
    values -= values.max()
    values -= np.log(np.exp(values).sum())
    top: tuple[tuple[int, float], ...] = ()
    if count:
        places = np.argpartition(values, -count)[-count:]
        places = places[np.argsort(-values[places], kind="stable")]
        top = tuple((int(place), float(values[place])) for place in places)
    return TokenLogprobs(token, float(values[token]), top)
