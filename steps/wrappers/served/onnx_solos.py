"""Lone answers with onnxruntime-genai: each on a Generator of its own, which the prefix cache keeps
for the conversation's next turn.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from mlflow.exceptions import MlflowException

from .contract import Request
from .grammars import fault_of_grammar, uncompilable
from .prefix_cache import CacheEntry, PrefixCache
from .scheduler import Job, broken

ROUND = 64  # KV caches that are kept are sized in multiples of this many tokens
# tokens of room, at least, that a conversation's KV cache gets for the turns that may follow
NEXT_TURNS = 256
# prompt tokens computed at once: the logits of each are held, 4 bytes for every entry of the
# vocabulary
PREFILL_CHUNK = 256


@dataclass(eq=False)
class Solo:
    """One answer on a Generator of its own; ``tokens`` are those the KV cache holds, ``pending``
    those of the prompt that it lacks.
    """

    job: Job
    generator: Any  # None before it is made: one with a grammar compiles it, with the GIL held
    tokens: list[int]
    pending: list[int]
    capacity: int
    long: bool = False  # whether its keys were rotated with the factors of past the border
    last: int | None = None  # generated, not yet in the KV cache
    produced: int = 0
    # of generated tokens, where a penalty asks for them
    counts: Counter[int] = field(default_factory=Counter)


class Solos:
    """The lone answers of one model.

    Args:
        og: the onnxruntime_genai module.
        model: its Model.
        eos: token ids that end an answer.
        context_length: tokens a prompt and its answer may have together.
        rope_border: tokens past which a text's keys are all rotated with other factors; None where
            there is no such length.
        least_capacity: tokens that a KV cache has room for at least.
        vocabulary: entries of the vocabulary.
        token_bytes: bytes of KV cache a token takes.
        cache: generators kept across turns.
    """

    def __init__(
        self,
        og: Any,
        model: Any,
        *,
        eos: set[int],
        context_length: int,
        vocabulary: int,
        token_bytes: int,
        cache: PrefixCache,
        rope_border: int | None = None,
        least_capacity: int = 0,
    ) -> None:
        self._og, self._model, self._cache = og, model, cache
        self._eos, self._context_length, self._vocabulary, self._token_bytes = (
            eos,
            context_length,
            vocabulary,
            token_bytes,
        )
        self._rope_border, self._least_capacity = rope_border, least_capacity
        self._running: list[Solo] = []

    def __len__(self) -> int:
        return len(self._running)

    def kept(self, job: Job) -> int:
        """Tokens of a job's prompt that need not be computed: the prefix cache has them, with room
        for the rest and the answer.
        """
        found = (
            self._cache.find(job.ids, long=self._long(job.ids))
            if _rewindable(job.request)
            else None
        )
        return (
            found[1] if found and found[0].capacity >= len(job.ids) + job.request.max_tokens else 0
        )

    def start(self, job: Job) -> None:
        """Begin a job: its prompt, or what is new of it, is computed in the steps that follow. What
        goes wrong fails the job alone.
        """
        try:
            self._running.append(self._solo(job))
        except Exception as error:  # noqa: BLE001 - whatever the engine says of this job, the others go on
            job.fail(_failure(job, error))

    def _solo(self, job: Job) -> Solo:
        request = job.request
        capacity = need = max(len(job.ids) + request.max_tokens, self._least_capacity)
        long = self._long(job.ids)
        if _rewindable(request) and self._cache.budget:
            found = self._cache.find(job.ids, long=long)
            if found is not None:
                kept, shared = found
                self._cache.take(kept)
                if kept.capacity >= need:
                    kept.generator.rewind_to(shared)
                    job.cached_tokens = shared
                    return Solo(
                        job, kept.generator, job.ids[:shared], job.ids[shared:], kept.capacity, long
                    )
                need += need  # a conversation that outgrew its cache gets room for as much again
            elif request.messages is not None:
                need += max(NEXT_TURNS, need // 2)
            roomy = max(capacity, min(need, self._cache.budget // self._token_bytes))
            capacity = min(-(-roomy // ROUND) * ROUND, self._context_length)
        generator = None if request.grammar else self._generator(job, capacity, job.seed)
        return Solo(job, generator, [], list(job.ids), capacity, long)

    def _generator(self, job: Job, capacity: int, seed: int) -> Any:
        return self._og.Generator(self._model, self._parameters(job, capacity, seed))

    def _long(self, ids: list[int]) -> bool:
        """Whether a text of these tokens lies past the border of the rotary embeddings."""
        return self._rope_border is not None and len(ids) > self._rope_border

    def step(self) -> Iterator[tuple[Job, int | None, str | None]]:
        """Compute a piece of the prompts that wait for it, and generate one token for each whose
        prompt is whole.
        """
        # one a step, so that others get their turn
        fresh = next((solo for solo in self._running if solo.generator is None), None)
        due = self._due()
        for solo in list(self._running):
            try:
                if solo is fresh:
                    solo.generator = self._generator(solo.job, solo.capacity, solo.job.seed)
                if solo in due:
                    self._append(solo)
                if solo.pending or solo.generator is None:
                    continue
                token, reason = self._advance(solo)
            except Exception as error:  # noqa: BLE001 - whatever the engine says of this answer, the others go on
                # and not into the cache: what its Generator holds now is unknown
                self._running.remove(solo)
                solo.job.fail(_failure(solo.job, error))
                token, reason = None, "error"
            yield solo.job, token, reason

    def _due(self) -> list[Solo]:
        """Whose prompts are computed in this step: about one piece, the shortest first, so that no
        long prompt stops the others.
        """
        due: list[Solo] = []
        tokens = 0
        waiting = (solo for solo in self._running if solo.pending and solo.generator is not None)
        for solo in sorted(waiting, key=lambda solo: len(solo.pending)):
            tokens += self._chunk(solo)
            if due and tokens > PREFILL_CHUNK:
                break
            due.append(solo)
        return due

    def young(self, tokens: int) -> list[Job]:
        """Jobs that began at most ``tokens`` tokens ago, none of which anybody has read."""
        return [
            solo.job
            for solo in self._running
            if solo.produced <= tokens
            and not solo.job.cached_tokens
            and not (solo.job.streams and solo.job.tokens)
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

    def _parameters(self, job: Job, capacity: int, seed: int) -> Any:
        request = job.request
        options: dict[str, Any] = {
            "max_length": capacity,
            "do_sample": not request.greedy,
            "repetition_penalty": request.repetition_penalty,
        }
        if request.min_tokens:
            options["min_length"] = min(len(job.ids) + request.min_tokens, capacity)
        if not request.greedy:
            options |= {
                "temperature": request.temperature,
                "top_p": request.top_p,
                "random_seed": seed,
            }
            options["top_k"] = min(request.top_k, self._vocabulary)
        parameters = self._og.GeneratorParams(self._model)
        parameters.set_search_options(**options)
        if request.grammar is not None:
            parameters.set_guidance(request.grammar.kind, request.grammar.text)
        return parameters

    def _chunk(self, solo: Solo) -> int:
        """Tokens of a prompt that are computed next: a piece, or, of a text that lies past the
        border, all up to there.

        The graph chooses its factors by how long the text is by then, so no part of such a text may
        be computed while it is shorter.
        """
        if solo.long and self._rope_border is not None:
            return min(
                len(solo.pending), max(PREFILL_CHUNK, self._rope_border + 1 - len(solo.tokens))
            )
        return min(len(solo.pending), PREFILL_CHUNK)

    def _append(self, solo: Solo) -> None:
        """Compute one piece of a prompt: piece by piece is as fast as at once, in a fraction of the
        memory.
        """
        size = self._chunk(solo)
        piece = solo.pending[:size]
        solo.generator.append_tokens(piece)
        solo.tokens += piece
        del solo.pending[:size]

    def _cross(self, solo: Solo) -> None:
        """Compute a text anew whose next token lies past the border: its keys were rotated with the
        factors of short texts.
        """
        assert solo.last is not None
        solo.generator = self._generator(solo.job, solo.capacity, (solo.job.seed + 1) % 2**31)
        solo.tokens.append(solo.last)
        solo.generator.append_tokens(solo.tokens)
        solo.last, solo.long = None, True

    def _advance(self, solo: Solo) -> tuple[int, str | None]:
        if solo.last is not None and not solo.long and len(solo.tokens) == self._rope_border:
            self._cross(solo)
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
            self._cache.keep(
                CacheEntry(
                    solo.generator,
                    solo.tokens,
                    solo.capacity,
                    solo.capacity * self._token_bytes,
                    solo.long,
                )
            )


def _failure(job: Job, error: Exception) -> MlflowException:
    """What a caller is told of an answer that the engine did not give: a grammar that it does not
    take is the caller's.
    """
    grammar = job.request.grammar
    return (
        uncompilable(grammar, str(error))
        if grammar is not None and fault_of_grammar(error)
        else broken(error)
    )


def _penalise(solo: Solo) -> None:
    request = solo.job.request
    logits = solo.generator.get_logits().copy()  # (1, 1, vocabulary), float32
    tokens = list(solo.counts)
    logits[0, -1, tokens] -= [
        request.presence_penalty + request.frequency_penalty * solo.counts[token]
        for token in tokens
    ]
    solo.generator.set_logits(logits)


def _rewindable(request: Request) -> bool:
    """Whether a Generator can go on with it: its search options are fixed, so only plain greedy
    answers share one.
    """
    plain = (
        request.grammar is None
        and not request.penalised
        and request.repetition_penalty == 1
        and request.min_tokens == 0
    )
    return request.greedy and plain
