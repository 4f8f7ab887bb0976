"""Generation with transformers, one answer after another, token by token, with the settings and
random stream of each request.
"""

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .backend import Generated, Job, engine_error
from .checkpoint_files import read_json
from .invalid_request import invalid_request
from .limits import Limits

# Read when torch is imported, which is later. OpenMP's threads spin at every one of some hundred
# barriers a token; on a machine that has anything else to do, the one that is waited for then gets
# no processor, and a token takes seconds instead of a tenth of one.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


@dataclass
class Decoding:
    """One answer on its way."""

    job: Job
    cache: Any  # None before the first token
    ids: Any  # (1, tokens so far), int64
    processors: Any
    random: Any
    produced: int = 0
    # of generated tokens, where a penalty asks for them
    counts: Counter[int] = field(default_factory=Counter)


class TransformersBackend:
    """Generates with one checkpoint folder.

    The loop is written out instead of calling ``generate``: that one reads the global random state,
    takes one set of settings for a batch and cannot be left between tokens. The processors are
    transformers' own, and so is what each step is given: a model may want more than its last token,
    as one does whose rotary embeddings change past a length.

    Args:
        folder: the checkpoint.
        limits: its end tokens are read.
        threads: intra-op threads of torch. They are the whole process's.
        device: where the weights go, such as 'cpu' or 'cuda'.

    Raises:
        MlflowException: torch has no such device.
    """

    joins = True

    def __init__(self, folder: Path, *, limits: Limits, threads: int, device: str) -> None:
        import torch
        from transformers import AutoModelForCausalLM

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
        self._device = device
        self._eos = set(limits.eos_token_ids)
        self._current: Decoding | None = None
        self._later: list[Job] = []

    def room_for(self, jobs: Sequence[Job]) -> int:
        """One at a time."""
        return 0 if self.busy() else min(1, len(jobs))

    def busy(self) -> bool:
        """Whether anything is unfinished."""
        return self._current is not None or bool(self._later)

    def start(self, jobs: list[Job]) -> None:
        """Begin jobs, one after another."""
        self._later.extend(jobs)

    def stop(self, job: Job) -> None:
        """Drop a job."""
        if self._current is not None and self._current.job is job:
            self._current = None
        if job in self._later:
            self._later.remove(job)

    def close(self) -> None:
        """Free the weights."""
        self._current, self._model = None, None
        self._later.clear()

    def step(self) -> Iterator[Generated]:
        """Generate one token of the current answer."""
        job = self._current.job if self._current else self._later.pop(0) if self._later else None
        if job is None:
            return
        try:
            now = self._current = self._current or self.begin(job)
            token = self._next_token(now)
        except Exception as error:  # noqa: BLE001 - whatever the model says of this answer, the others go on
            self._current = None
            job.fail(engine_error(error))
            yield job, None, "error"
            return
        now.produced += 1
        if job.request.penalised:
            now.counts[token] += 1
        reason = job.finish_reason(token, now.produced, self._eos)
        if reason is not None:
            self._current = None
        yield job, token, reason

    def begin(self, job: Job) -> Decoding:
        from transformers import (
            LogitsProcessorList,
            MinNewTokensLengthLogitsProcessor,
            RepetitionPenaltyLogitsProcessor,
            TemperatureLogitsWarper,
            TopKLogitsWarper,
            TopPLogitsWarper,
        )

        request, torch = job.request, self._torch
        ids = torch.tensor([job.ids], dtype=torch.int64, device=self._device)
        processors = LogitsProcessorList()
        if request.repetition_penalty != 1:
            processors.append(RepetitionPenaltyLogitsProcessor(request.repetition_penalty))
        if request.min_tokens:
            processors.append(
                MinNewTokensLengthLogitsProcessor(
                    len(job.ids), request.min_tokens, sorted(self._eos), device=self._device
                )
            )
        random = None
        if not request.greedy:
            processors.append(TemperatureLogitsWarper(request.temperature))
            if request.top_k:
                processors.append(TopKLogitsWarper(request.top_k))
            if request.top_p < 1:
                processors.append(TopPLogitsWarper(request.top_p))
            random = torch.Generator(device=self._device).manual_seed(job.seed)
        return Decoding(job, None, ids, processors, random)

    def _next_token(self, now: Decoding) -> int:
        torch = self._torch
        with torch.inference_mode():
            first = now.cache is None
            inputs = self._model.prepare_inputs_for_generation(
                now.ids,
                next_sequence_length=None if first else 1,
                past_key_values=now.cache,
                attention_mask=torch.ones_like(now.ids),
                use_cache=True,
                logits_to_keep=1,
                is_first_iteration=first,
            )
            out = self._model(**inputs)
            now.cache = out.past_key_values
            scores = out.logits[:, -1, :].float()
            if now.counts:
                penalties = now.job.request.penalties(now.counts)
                scores[0, list(now.counts)] -= torch.tensor(penalties, device=self._device)
            scores = now.processors(now.ids, scores)
            if now.random is None:
                token = scores.argmax(dim=-1, keepdim=True)
            else:
                token = torch.multinomial(scores.softmax(dim=-1), 1, generator=now.random)
            now.ids = torch.cat([now.ids, token], dim=-1)
        return int(token[0, 0])
