"""Lone answers with onnxruntime-genai: each on a Generator of its own, which the prefix cache keeps for the conversation's next turn."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from .contract import Request
from .driver import Job
from .prefix_cache import Kept, PrefixCache
from .refusal import refusal

ROUND = 64  # KV caches that are kept are sized in multiples of this many tokens
NEXT_TURNS = 256  # tokens of room, at least, that a conversation's KV cache gets for the turns that may follow
PIECE = 256  # prompt tokens computed at once: the logits of each are held, 4 bytes for every entry of the vocabulary


@dataclass
class Solo:
    """One answer on a Generator of its own; ``tokens`` are those the KV cache holds."""

    job: Job
    generator: Any
    tokens: list[int]
    capacity: int
    last: int | None = None  # generated, not yet in the KV cache
    produced: int = 0
    counts: Counter[int] = field(default_factory=Counter)  # of generated tokens, where a penalty asks for them


class Solos:
    """The lone answers of one model.

    Args:
        og: the onnxruntime_genai module.
        model: its Model.
        eos: token ids that end an answer.
        context_length: tokens a prompt and its answer may have together.
        token_bytes: bytes of KV cache a token takes.
        cache: generators kept across turns.
    """

    def __init__(self, og: Any, model: Any, *, eos: set[int], context_length: int, token_bytes: int, cache: PrefixCache) -> None:
        self._og, self._model, self._cache = og, model, cache
        self._eos, self._context_length, self._token_bytes = eos, context_length, token_bytes
        self._running: list[Solo] = []

    def __len__(self) -> int:
        return len(self._running)

    def kept(self, job: Job) -> int:
        """Tokens of a job's prompt that the prefix cache has."""
        found = self._cache.find(job.ids) if _rewindable(job.request) else None
        return found[1] if found else 0

    def start(self, job: Job) -> None:
        """Compute a prompt, or what is new of it. A grammar that cannot be compiled fails the job alone."""
        request = job.request
        capacity = need = len(job.ids) + request.max_tokens
        if _rewindable(request) and self._cache.budget:
            found = self._cache.find(job.ids)
            if found is not None:
                kept, shared = found
                self._cache.take(kept)
                if kept.capacity >= need:
                    kept.generator.rewind_to(shared)
                    _append(kept.generator, job.ids[shared:])
                    job.cached_tokens = shared
                    self._running.append(Solo(job, kept.generator, list(job.ids), kept.capacity))
                    return
                need += need  # a conversation that outgrew its cache gets room for as much again
            elif request.messages is not None:
                need += max(NEXT_TURNS, need // 2)
            roomy = max(capacity, min(need, self._cache.budget // self._token_bytes))
            capacity = min(-(-roomy // ROUND) * ROUND, self._context_length)
        try:
            generator = self._og.Generator(self._model, self._parameters(job, capacity))
        except Exception as error:
            if request.grammar is None:
                raise
            job.fail(refusal("response_format", request.grammar.text, f"a grammar that can be compiled ({error})"))
            return
        _append(generator, job.ids)
        self._running.append(Solo(job, generator, list(job.ids), capacity))

    def step(self) -> Iterator[tuple[Job, int | None, str | None]]:
        """Generate one token for each."""
        for solo in list(self._running):
            token, reason = self._advance(solo)
            yield solo.job, token, reason

    def young(self, tokens: int) -> list[Job]:
        """Jobs that began at most ``tokens`` tokens ago, none of which anybody has read."""
        return [
            solo.job
            for solo in self._running
            if solo.produced <= tokens and not solo.job.cached_tokens and not (solo.job.streams and solo.job.tokens)
        ]

    def withdraw(self, job: Job) -> None:
        """Forget a job that is begun again elsewhere."""
        self._running = [solo for solo in self._running if solo.job is not job]

    def stop(self, job: Job) -> bool:
        """Drop a job, keeping what was computed; whether it was here."""
        for solo in self._running:
            if solo.job is job:
                self._retire(solo)
                return True
        return False

    def close(self) -> None:
        """Free every generator and let the model go."""
        self._running.clear()
        self._model = None

    def _parameters(self, job: Job, capacity: int) -> Any:
        request = job.request
        options: dict[str, Any] = {
            "max_length": capacity,
            "do_sample": not request.greedy,
            "repetition_penalty": request.repetition_penalty,
        }
        if request.min_tokens:
            options["min_length"] = min(len(job.ids) + request.min_tokens, capacity)
        if not request.greedy:
            options |= {"temperature": request.temperature, "top_p": request.top_p, "top_k": request.top_k, "random_seed": job.seed}
        parameters = self._og.GeneratorParams(self._model)
        parameters.set_search_options(**options)
        if request.grammar is not None:
            parameters.set_guidance(request.grammar.kind, request.grammar.text)
        return parameters

    def _advance(self, solo: Solo) -> tuple[int, str | None]:
        if solo.counts:
            _penalise(solo)
        solo.generator.generate_next_token()
        token = int(solo.generator.get_next_tokens()[0])
        if solo.job.request.penalised:
            solo.counts[token] += 1
        if solo.last is not None:
            solo.tokens.append(solo.last)
        solo.last = token
        solo.produced += 1
        if token in self._eos:
            reason: str | None = "stop"
        else:
            reason = "length" if solo.produced >= solo.job.request.max_tokens else None
        if reason is not None:
            self._retire(solo)
        return token, reason

    def _retire(self, solo: Solo) -> None:
        self._running.remove(solo)
        if _rewindable(solo.job.request):
            self._cache.keep(Kept(solo.generator, solo.tokens, solo.capacity, solo.capacity * self._token_bytes))


def _append(generator: Any, ids: list[int]) -> None:
    """Compute a prompt piece by piece: as fast as at once, in a fraction of the memory."""
    for start in range(0, len(ids), PIECE):
        generator.append_tokens(ids[start : start + PIECE])


def _penalise(solo: Solo) -> None:
    request = solo.job.request
    logits = solo.generator.get_logits().copy()  # (1, 1, vocabulary), float32
    tokens = list(solo.counts)
    logits[0, -1, tokens] -= [request.presence_penalty + request.frequency_penalty * solo.counts[token] for token in tokens]
    solo.generator.set_logits(logits)


def _rewindable(request: Request) -> bool:
    """Whether a Generator can go on with it: its search options are fixed, so only plain greedy answers share one."""
    plain = request.grammar is None and not request.penalised and request.repetition_penalty == 1 and request.min_tokens == 0
    return request.greedy and plain
