"""Answers one by one with onnxruntime-genai, each on a Generator of its own, which the prefix cache
keeps for the conversation's next turn.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from .backend import PREFILL_CHUNK, Generated, Job
from .limits import Limits
from .onnx_options import generator_error, generator_params, penalise, rewindable
from .prefix_cache import CacheEntry, PrefixCache

ROUND_TOKENS = 64  # KV caches that are kept are sized in multiples of this many tokens
# tokens of room, at least, that a conversation's KV cache gets for the turns that may follow
NEXT_TURNS = 256


@dataclass(eq=False)
class GeneratorRow:
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


class GeneratorRows:
    """The answers of one model that have a Generator each.

    Args:
        og: the onnxruntime_genai module.
        model: its Model.
        limits: what ends an answer, how long a text may be, and the border of its rotary
            embeddings.
        vocabulary: entries of the vocabulary.
        token_bytes: bytes of KV cache a token takes.
        cache: generators kept across turns.
        least_capacity: tokens that a KV cache has room for at least.
    """

    def __init__(
        self,
        og: Any,
        model: Any,
        *,
        limits: Limits,
        vocabulary: int,
        token_bytes: int,
        cache: PrefixCache,
        least_capacity: int = 0,
    ) -> None:
        self._og, self._model, self._cache, self._limits = og, model, cache, limits
        self._token_bytes, self._least_capacity = token_bytes, least_capacity
        self.vocabulary = vocabulary
        self.running: list[GeneratorRow] = []

    def __len__(self) -> int:
        return len(self.running)

    def cached(self, job: Job) -> int:
        """Tokens of a job's prompt that need not be computed: the prefix cache has them, with room
        for the rest and the answer.
        """
        if not rewindable(job.request):
            return 0
        entry, shared = self._cache.find(job.ids, long=self._long(job.ids)) or (None, 0)
        need = len(job.ids) + job.request.max_tokens
        return shared if entry is not None and entry.capacity >= need else 0

    def start(self, job: Job) -> None:
        """Begin a job: its prompt, or what is new of it, is computed in the steps that follow. What
        goes wrong fails the job alone.
        """
        try:
            self.running.append(self._row(job))
        except Exception as error:  # noqa: BLE001 - whatever the engine says of this job, the others go on
            job.fail(generator_error(job, error))

    def _row(self, job: Job) -> GeneratorRow:
        request = job.request
        capacity = need = max(len(job.ids) + request.max_tokens, self._least_capacity)
        long = self._long(job.ids)
        if rewindable(request) and self._cache.budget:
            entry, shared = self._cache.find(job.ids, long=long) or (None, 0)
            if entry is not None:
                self._cache.take(entry)
                if entry.capacity >= need:
                    entry.generator.rewind_to(shared)
                    job.cached_tokens = shared
                    old, new = job.ids[:shared], job.ids[shared:]
                    return GeneratorRow(job, entry.generator, old, new, entry.capacity, long)
                need += need  # a conversation that outgrew its cache gets room for as much again
            elif request.messages is not None:
                need += max(NEXT_TURNS, need // 2)
            roomy = max(capacity, min(need, self._cache.budget // self._token_bytes))
            capacity = min(-(-roomy // ROUND_TOKENS) * ROUND_TOKENS, self._limits.context_length)
        generator = None if request.grammar else self._generator(job, capacity, job.seed)
        return GeneratorRow(job, generator, [], list(job.ids), capacity, long)

    def _generator(self, job: Job, capacity: int, seed: int) -> Any:
        options = {"capacity": capacity, "seed": seed, "vocabulary": self.vocabulary}
        return self._og.Generator(
            self._model, generator_params(self._og, self._model, job, **options)
        )

    def _long(self, ids: list[int]) -> bool:
        """Whether a text of these tokens lies past the border of the rotary embeddings."""
        return self._limits.rope_border is not None and len(ids) > self._limits.rope_border

    def step(self) -> Iterator[Generated]:
        """Compute a piece of the waiting prompts, and a token for each whose prompt is whole."""
        # one a step, so that others get their turn
        fresh = next((row for row in self.running if row.generator is None), None)
        due = self._due()
        for row in list(self.running):
            try:
                if row is fresh:
                    row.generator = self._generator(row.job, row.capacity, row.job.seed)
                if row in due:
                    self.prefill(row)
                if row.pending or row.generator is None:
                    continue
                token, reason = self._advance(row)
            except Exception as error:  # noqa: BLE001 - whatever the engine says of this answer, the others go on
                # and not into the cache: what its Generator holds now is unknown
                self.running.remove(row)
                row.job.fail(generator_error(row.job, error))
                token, reason = None, "error"
            yield row.job, token, reason

    def _due(self) -> list[GeneratorRow]:
        """Whose prompts are computed in this step: about one piece, the shortest first, so that no
        long prompt stops the others.
        """
        due: list[GeneratorRow] = []
        tokens = 0
        waiting = (row for row in self.running if row.pending and row.generator is not None)
        for row in sorted(waiting, key=lambda row: len(row.pending)):
            tokens += self._chunk(row)
            if due and tokens > PREFILL_CHUNK:
                break
            due.append(row)
        return due

    def young(self, tokens: int) -> list[Job]:
        """Jobs that began at most ``tokens`` tokens ago and of which no caller has read any."""
        return [
            row.job
            for row in self.running
            if row.produced <= tokens
            and not row.job.cached_tokens
            and not (row.job.streams and row.job.tokens)
        ]

    def withdraw(self, job: Job) -> None:
        """Forget a job that is begun again elsewhere."""
        self.running = [row for row in self.running if row.job is not job]

    def stop(self, job: Job) -> bool:
        """Drop a job, keeping what was computed; whether it was here."""
        for row in self.running:
            if row.job is job:
                self._retire(row)
                return True
        return False

    def close(self) -> None:
        """Free every generator and let the model go."""
        self.running.clear()
        self._model = None

    def _chunk(self, row: GeneratorRow) -> int:
        """Tokens of a prompt that are computed next: a piece, or, of a text that lies past the
        border, all up to there.

        The graph chooses its factors by how long the text is by then, so no part of such a text may
        be computed while it is shorter.
        """
        if row.long and self._limits.rope_border is not None:
            return min(
                len(row.pending), max(PREFILL_CHUNK, self._limits.rope_border + 1 - len(row.tokens))
            )
        return min(len(row.pending), PREFILL_CHUNK)

    def prefill(self, row: GeneratorRow) -> None:
        """Compute one piece of a prompt: as fast as at once, in a fraction of the memory."""
        size = self._chunk(row)
        piece = row.pending[:size]
        row.generator.append_tokens(piece)
        row.tokens += piece
        del row.pending[:size]

    def _cross(self, row: GeneratorRow) -> None:
        """Compute a text anew whose next token lies past the border: its keys were rotated with the
        factors of short texts.
        """
        assert row.last is not None
        row.generator = self._generator(row.job, row.capacity, (row.job.seed + 1) % 2**31)
        row.tokens.append(row.last)
        row.generator.append_tokens(row.tokens)
        row.last, row.long = None, True

    def _advance(self, row: GeneratorRow) -> tuple[int, str | None]:
        if row.last is not None and not row.long and len(row.tokens) == self._limits.rope_border:
            self._cross(row)
        if row.counts:
            penalise(row.generator, row.job.request, row.counts)
        row.generator.generate_next_token()
        token = int(row.generator.get_next_tokens()[0])
        if row.job.request.penalised:
            row.counts[token] += 1
        if row.last is not None:
            row.tokens.append(row.last)
        row.last = token
        row.produced += 1
        reason = row.job.finish_reason(token, row.produced, self._limits.eos_token_ids)
        if reason is not None:
            self._retire(row)
        return token, reason

    def _retire(self, row: GeneratorRow) -> None:
        self.running.remove(row)
        if rewindable(row.job.request):
            size = row.capacity * self._token_bytes
            self._cache.keep(CacheEntry(row.generator, row.tokens, row.capacity, size, row.long))
