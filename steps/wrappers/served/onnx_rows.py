"""Continuous batching on CPU: requests join and leave a running batch at every token."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from .backend import PREFILL_CHUNK, Generated, Job
from .grammar_matchers import GrammarMatchers, answer_error
from .kv_cache import KVCache
from .limits import Limits
from .onnx_graph import OnnxGraph, Row
from .prefix_blocks import PrefixBlocks, chain
from .sampling import Sampler, Scores

PREFILLING = 2  # the group of rows whose prompts are computed; others decode


@dataclass(eq=False)
class Answering:
    """One answer in a slot.

    Attributes:
        job: to be answered.
        sampler: chooses its tokens.
        need: tokens of prompt and answer at most.
        order: of arrival.
        long: whether its keys are rotated as those of texts past LongRoPE's border are.
        names: of the whole pieces of its prompt; empty where they are not kept.
        length: tokens that its slot holds.
        tokens: generated; the last is not in the slot yet.
        decoding: whether its prompt is whole.
    """

    job: Job
    sampler: Sampler
    need: int
    order: int
    long: bool
    names: list[bytes]
    length: int = 0
    tokens: list[int] = field(default_factory=list)
    decoding: bool = False

    @property
    def size(self) -> int:
        """Tokens of prompt and answer so far."""
        return len(self.job.ids) + len(self.tokens)

    def piece(self) -> list[int]:
        """What is computed next: of a prompt, or of a text that is computed anew."""
        text = [*self.job.ids, *self.tokens] if self.tokens else self.job.ids
        return text[self.length : self.length + PREFILL_CHUNK]

    @property
    def group(self) -> int:
        """Rows of a group are decoded together; those whose prompts are computed come last."""
        return int(self.long) if self.decoding else PREFILLING


class OnnxRows:
    """Generates with one graph for all requests, greedy or not, with grammars or not.

    Every step computes one piece of one prompt, then a token for every row that decodes. Pieces
    begin at fixed positions and are computed alone, so a prompt is computed in the same way
    whatever else runs.

    Args:
        graph: of the model.
        limits: what ends an answer, how long a text may be, where its rotary embeddings change.
        max_batch_size: answers generated side by side.
        kv_cache_bytes: keys and values of answers that are generated; fewer run side by side when
            theirs are long. One answer alone may take more.
        prefix_cache_bytes: keys and values of prompts, kept for those that begin alike.
        matchers: of grammars.
    """

    joins = True

    def __init__(
        self,
        graph: OnnxGraph,
        *,
        limits: Limits,
        max_batch_size: int,
        kv_cache_bytes: int,
        prefix_cache_bytes: int,
        matchers: GrammarMatchers,
    ) -> None:
        self._graph, self._limits, self._matchers = graph, limits, matchers
        self._most, self._budget = max_batch_size, kv_cache_bytes
        # the last slot is there to exchange two others by
        self.cache = KVCache(graph.layers, max_batch_size + 1)
        self.blocks = PrefixBlocks(prefix_cache_bytes)
        self._slots: list[Answering | None] = []
        self._arrivals = self._pieces = 0

    @property
    def rows(self) -> list[Answering]:
        """Answers on their way, by slot."""
        return [row for row in self._slots if row is not None]

    # --- the scheduler's side

    def room_for(self, jobs: Sequence[Job]) -> int:
        """How many of the first jobs may be started now: there are slots and memory for them."""
        rows = self.rows
        need = max((row.need for row in rows), default=0)
        for count, job in enumerate(jobs):
            need = max(need, _need(job))
            if len(rows) + count >= max(1, min(self._most, self._fitting(need))):
                return count
        return len(jobs)

    def _fitting(self, need: int) -> int:
        """Slots for so many tokens that the memory for answers holds."""
        return self._budget // (self.cache.rounded(need) * self.cache.token_bytes)

    def busy(self) -> bool:
        """Whether anything is unfinished."""
        return bool(self.rows)

    def start(self, jobs: list[Job]) -> None:
        """Give jobs a slot each, with what is kept of their prompts."""
        self._arrange()
        for job in jobs:
            try:
                row = self._row(job)
                self._reserve(row)
                self._recall(row, len(self._slots))
            except Exception as error:  # noqa: BLE001 - whatever is wrong with this job, the others go on
                job.fail(answer_error(job, error))
                continue
            self._slots.append(row)
        if not self.busy():
            self.cache.release()

    def _reserve(self, row: Answering) -> None:
        """Make slots long enough for one more row; shorter, where fewer of the length that they
        have would fit than run.
        """
        rows = self.rows
        need = max([row.need, *(other.need for other in rows)])
        capacity = self.cache.rounded(need)
        if capacity > self.cache.capacity or len(rows) >= self._fitting(self.cache.capacity):
            self.cache.reserve(capacity, [other.length for other in rows])

    def _row(self, job: Job) -> Answering:
        border = self._limits.rope_border
        long = border is not None and len(job.ids) > border
        names = chain(job.ids, PREFILL_CHUNK, long=long) if self.blocks.budget else []
        grammar = job.request.grammar
        mask = None if grammar is None else self._matchers.mask(grammar)
        sampler = Sampler(job, self._limits.eos_token_ids, mask)
        self._arrivals += 1
        return Answering(job, sampler, _need(job), self._arrivals, long, names)

    def _recall(self, row: Answering, slot: int) -> None:
        """Fill a slot with the pieces of a prompt that are kept. Not the last token's: its scores
        are needed.
        """
        for block in self.blocks.kept(row.names[: (len(row.job.ids) - 1) // PREFILL_CHUNK]):
            self.cache.write(slot, row.length, block)
            row.length += PREFILL_CHUNK
        row.job.cached_tokens = row.length

    def step(self) -> Iterator[Generated]:
        """Compute a piece of a prompt, and a token for each row whose prompt is whole."""
        prefilling = [row for row in self.rows if not row.decoding]
        if prefilling:
            yield from self._prefill(self._next(prefilling))
        yield from self._decode()

    def stop(self, job: Job) -> None:
        """Drop a job."""
        for row in self.rows:
            if row.job is job:
                self._leave(row)

    def close(self) -> None:
        """Give everything back."""
        self._slots.clear()
        self.blocks.clear()
        self.cache.release()
        del self._graph

    # --- slots

    def _leave(self, row: Answering) -> None:
        self._slots[self._slots.index(row)] = None
        if not self.busy():  # an idle model holds nothing but what is kept of prompts
            self._slots.clear()
            self.cache.release()

    def _arrange(self) -> None:
        """Put the rows of a group side by side, by as few copies as it takes."""
        rows = self.rows
        wanted = sorted(row.group for row in rows)
        for slot, group in enumerate(wanted):
            there = self._slots[slot]
            if there is not None and there.group == group:
                continue
            # the last row of the group, which lies behind its place
            source = max(
                place
                for place, row in enumerate(self._slots)
                if row is not None and row.group == group
            )
            self._exchange(slot, source)
        del self._slots[len(rows) :]

    def _exchange(self, slot: int, source: int) -> None:
        """Move a row to another slot, and the row that is there, if one is, to its own."""
        there, row = self._slots[slot], self._slots[source]
        assert row is not None
        if there is not None:
            self.cache.copy(slot, self._most, there.length)
        self.cache.copy(source, slot, row.length)
        if there is not None:
            self.cache.copy(self._most, source, there.length)
        self._slots[slot], self._slots[source] = row, there

    # --- prompts

    def _next(self, prefilling: list[Answering]) -> Answering:
        """Whose piece is computed: by turns who has the fewest left, so that short prompts do not
        wait for long ones, and who came first, so that long ones do not wait for ever.
        """
        self._pieces += 1
        if self._pieces % 2:
            return min(prefilling, key=lambda row: row.size - row.length)
        return min(prefilling, key=lambda row: row.order)

    def _prefill(self, row: Answering) -> Iterator[Generated]:
        """Compute a piece of a prompt, and the answer's next token when it was the last one."""
        slot, start, piece = self._slots.index(row), row.length, row.piece()
        try:
            scores = self._graph.prefill(self.cache, slot, Row(piece, start), long=row.long)
        except Exception as error:  # noqa: BLE001 - whatever the engine says of this prompt, the others go on
            yield self._failed(row, error)
            return
        row.length += len(piece)
        number = start // PREFILL_CHUNK
        if number < len(row.names) and row.names[number] not in self.blocks:
            block = self.cache.read(slot, start, row.length)
            self.blocks.keep(row.names[: number + 1], block)
        if row.length == row.size:
            row.decoding = True
            yield self._chosen(row, scores)

    # --- answers

    def _decode(self) -> Iterator[Generated]:
        """Compute a token more for every row whose prompt is whole."""
        for row in self.rows:
            if row.decoding and not row.long and row.length == self._limits.rope_border:
                # The next token lies past the border: all before it is computed anew, as its keys
                # were rotated with the factors of short texts.
                row.long, row.decoding, row.length, row.names = True, False, 0, []
        self._arrange()
        for group in (0, 1):
            rows = [row for row in self.rows if row.group == group]
            yield from self._decode_together(rows, long=bool(group))

    def _decode_together(self, rows: list[Answering], *, long: bool) -> list[Generated]:
        if not rows:
            return []
        given = [Row(row.tokens[-1:], row.length) for row in rows]
        first = self._slots.index(rows[0])
        try:
            scores = self._graph.decode(self.cache, first, given, long=long)
        except Exception as error:  # noqa: BLE001 - these answers are lost, the others go on
            return [self._failed(row, error) for row in rows]
        for row in rows:
            row.length += 1
        return [self._chosen(row, scores[index]) for index, row in enumerate(rows)]

    def _chosen(self, row: Answering, scores: Scores) -> Generated:
        try:
            token = row.sampler.choose(scores)
        except Exception as error:  # noqa: BLE001 - whatever is wrong with this answer, the others go on
            return self._failed(row, error)
        row.tokens.append(token)
        reason = row.job.finish_reason(token, len(row.tokens), self._limits.eos_token_ids)
        if reason is not None:
            self._leave(row)
        return row.job, token, reason

    def _failed(self, row: Answering, error: Exception) -> Generated:
        row.job.fail(answer_error(row.job, error))
        self._leave(row)
        return row.job, None, "error"


def _need(job: Job) -> int:
    """Tokens of a job's prompt and answer at most."""
    return len(job.ids) + job.request.max_tokens
