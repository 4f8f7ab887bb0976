"""Generation with transformers: answers are computed together, and join and leave between steps."""

import os
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .backend import Generated, Job
from .checkpoint_files import read_json
from .grammar_matchers import GrammarMatchers, answer_error
from .invalid_request import invalid_request
from .limits import Limits
from .sampling import Sampler, Scores
from .transformers_rows import RowsCache, share_keys, turn_head, windows_of

# Read when torch is imported, which is later. OpenMP's threads spin at every one of some hundred
# barriers a token; on a machine that has anything else to do, the one that is waited for then gets
# no processor, and a token takes seconds instead of a tenth of one.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

# prompt tokens computed at once, and about as many in a step: the others wait for their next token
PROMPT_PIECE = 256


@dataclass(eq=False)
class TransformersRow:
    """One answer on its way."""

    job: Job
    sampler: Sampler
    ids: list[int]  # of the prompt and the answer
    # of the tokens that are computed; None before the first and in the batch, which has its own
    cache: Any = None
    computed: int = 0
    produced: int = 0


class TransformersBackend:
    """Generates with one checkpoint folder.

    The loop is written out instead of calling ``generate``: that one takes one set of settings for
    a batch, which no request can join, and cannot be left between tokens. Prompts are computed one
    by one and in pieces, then their answers are decoded together. A model whose config does not
    allow that, and a text that may cross the border of its rotary embeddings, are decoded one by
    one, with what transformers gives each step: a model may want more than its last token, as one
    does whose rotary embeddings change past a length.

    Args:
        folder: the checkpoint.
        limits: its end tokens and the border of its rotary embeddings are read.
        threads: intra-op threads of torch. They are the whole process's.
        device: where the weights go, such as 'cpu' or 'cuda'.
        max_batch_size: answers generated side by side.
        matchers: of grammars.

    Raises:
        MlflowException: torch has no such device.
    """

    joins = True

    def __init__(
        self,
        folder: Path,
        *,
        limits: Limits,
        threads: int,
        device: str,
        max_batch_size: int,
        matchers: GrammarMatchers,
    ) -> None:
        import torch
        from transformers import AutoModelForCausalLM, DynamicCache

        torch.set_num_threads(threads)
        self._torch = torch
        try:
            torch.empty(0, device=device)
        except (RuntimeError, AssertionError, NotImplementedError) as error:
            # an unknown name, or a torch built without it
            raise invalid_request(
                "model_config.execution_provider",
                device,
                f"a device of this torch, such as 'cpu' ({error})",
            ) from error
        # torch's fused attention leaves out soft caps of attention scores without a word (Gemma 2):
        # the plain one has them
        capped = read_json(folder / "config.json").get("attn_logit_softcapping") is not None
        attention = {"attn_implementation": "eager"} if capped else {}
        self._model = (
            AutoModelForCausalLM.from_pretrained(str(folder), dtype="auto", **attention)
            .to(device)
            .eval()
        )
        self._like = torch.empty(0, dtype=self._model.dtype, device=device)
        self._device, self._limits, self._matchers = device, limits, matchers
        self._max_batch_size = max_batch_size
        self._cache_class: Any = DynamicCache
        windows = windows_of(self._model, self._new_cache().layers)
        self._cache = None if windows is None else RowsCache(torch, windows, max_batch_size)
        if windows is not None and self._model.config._attn_implementation == "sdpa":
            share_keys(self._model)
        turn_head(self._model)
        self._prompts: deque[TransformersRow] = deque()  # of which some is not computed yet
        self._batch: list[TransformersRow] = []  # in the order of the cache's rows
        self._lone: list[TransformersRow] = []  # decoded one by one

    def _new_cache(self) -> Any:
        return self._cache_class(config=self._model.config)

    def room_for(self, jobs: Sequence[Job]) -> int:
        """How many of the first jobs may be started now."""
        running = len(self._prompts) + len(self._batch) + len(self._lone)
        return min(len(jobs), self._max_batch_size - running)

    def busy(self) -> bool:
        """Whether anything is unfinished."""
        return bool(self._prompts or self._batch or self._lone)

    def start(self, jobs: list[Job]) -> None:
        """Begin jobs: their prompts are computed in the steps that follow."""
        for job in jobs:
            try:
                self._prompts.append(self.begin(job))
            except Exception as error:  # noqa: BLE001 - whatever is wrong with this job, the others go on
                job.fail(answer_error(job, error))

    def begin(self, job: Job) -> TransformersRow:
        """Make a job's row."""
        grammar = job.request.grammar
        mask = None if grammar is None else self._matchers.mask(grammar)
        return TransformersRow(job, Sampler(job, self._limits.eos_token_ids, mask), list(job.ids))

    def stop(self, job: Job) -> None:
        """Drop a job."""
        for row in [*self._prompts, *self._batch, *self._lone]:
            if row.job is job:
                self._drop(row)

    def close(self) -> None:
        """Free the weights."""
        self._model = self._cache = None
        for rows in (self._prompts, self._batch, self._lone):
            rows.clear()

    def step(self) -> Iterator[Generated]:
        """Generate one token for every answer, and compute about one piece of the waiting
        prompts.
        """
        if self._batch:
            yield from self._step_batch()
        for row in list(self._lone):
            yield from self._guarded(row)
        for row in self._due():
            yield from self._guarded(row)

    def _step_batch(self) -> Iterator[Generated]:
        rows = list(self._batch)
        try:
            scores = self._decode_batch()
        except Exception as error:  # noqa: BLE001 - these answers are lost, the others go on
            for row in rows:
                yield self._failed(row, error)
            return
        for row, own in zip(rows, scores, strict=True):
            if row in self._batch:  # not stopped meanwhile
                yield from self._advance(row, own)

    def _due(self) -> list[TransformersRow]:
        """Whose prompts are computed in this step. They go to the end of the line, so that neither
        short nor long prompts are held back.
        """
        due = [self._prompts[0]] if self._prompts else []
        tokens = sum(map(self._piece, due))
        for row in list(self._prompts)[1:]:
            tokens += self._piece(row)
            if tokens > PROMPT_PIECE:
                break
            due.append(row)
        self._prompts.rotate(-len(due))
        return due

    def _guarded(self, row: TransformersRow) -> Iterator[Generated]:
        """Compute what a row waits for by itself, and its token where its prompt is whole."""
        if not (row in self._prompts or row in self._lone):  # stopped meanwhile
            return
        try:
            scores = self._compute(row)
            if row.computed < len(row.ids):
                return
            if row in self._prompts:
                self._begin_decoding(row)
        except Exception as error:  # noqa: BLE001 - whatever the model says of this answer, the others go on
            yield self._failed(row, error)
            return
        yield from self._advance(row, scores)

    def _begin_decoding(self, row: TransformersRow) -> None:
        if self._cache is None or self._crosses(row):
            self._lone.append(row)
        else:
            self._cache.join(row.cache.layers, row.computed)
            self._batch.append(row)
            row.cache = None
        self._prompts.remove(row)

    def _advance(self, row: TransformersRow, scores: Scores) -> Iterator[Generated]:
        """Choose a row's next token."""
        try:
            token = row.sampler.choose(scores)
        except Exception as error:  # noqa: BLE001 - a grammar that fails is this answer's alone
            yield self._failed(row, error)
            return
        row.ids.append(token)
        row.produced += 1
        reason = row.job.finish_reason(token, row.produced, self._limits.eos_token_ids)
        if reason is not None:
            self._drop(row)
        yield row.job, token, reason

    def _failed(self, row: TransformersRow, error: Exception) -> Generated:
        self._drop(row)
        row.job.fail(answer_error(row.job, error))
        return row.job, None, "error"

    def _drop(self, row: TransformersRow) -> None:
        if row in self._batch:
            assert self._cache is not None
            place, last = self._batch.index(row), self._batch.pop()
            if last is not row:  # as the cache does
                self._batch[place] = last
            self._cache.leave(place)
        for rows in (self._prompts, self._lone):
            if row in rows:
                rows.remove(row)

    def _crosses(self, row: TransformersRow) -> bool:
        """Whether a text may go past the border of the rotary embeddings, where all of it is
        computed with other factors.
        """
        border = self._limits.rope_border
        return border is not None and len(row.job.ids) + row.job.request.max_tokens > border

    def _piece(self, row: TransformersRow) -> int:
        """Tokens of a prompt that are computed next: a text that may cross the border whole, as its
        length decides how each of its tokens is computed.
        """
        left = len(row.ids) - row.computed
        return left if self._crosses(row) else min(left, PROMPT_PIECE)

    def _compute(self, row: TransformersRow) -> Scores:
        """Compute a row's next tokens by themselves; scores of what follows them."""
        torch, first = self._torch, row.cache is None
        tokens = self._piece(row)
        end = row.computed + tokens
        if first:
            row.cache = self._new_cache()
        ids = torch.tensor([row.ids[:end]], dtype=torch.int64, device=self._device)
        with torch.inference_mode():
            inputs = self._model.prepare_inputs_for_generation(
                ids,
                next_sequence_length=None if first else tokens,
                past_key_values=row.cache,
                attention_mask=torch.ones_like(ids),
                use_cache=True,
                logits_to_keep=1,
                is_first_iteration=first,
            )
            out = self._model(**inputs)
        row.cache, row.computed = out.past_key_values, end
        return self._scores(out)[0]

    def _decode_batch(self) -> list[Scores]:
        """Compute the last token of every row of the batch."""
        torch = self._torch
        assert self._cache is not None
        last = torch.tensor([[row.ids[-1]] for row in self._batch], device=self._device)
        with torch.inference_mode():
            positions, mask = self._cache.begin_step(self._like)
            out = self._model(
                input_ids=last,
                position_ids=positions,
                attention_mask=mask,
                past_key_values=self._cache,
                use_cache=True,
            )
        for row in self._batch:
            row.computed += 1
        return self._scores(out)

    def _scores(self, out: Any) -> list[Scores]:
        """Scores of the next token, of each row."""
        return list(out.logits[:, -1].float().cpu().numpy())
