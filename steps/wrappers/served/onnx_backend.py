"""Generation with onnxruntime-genai: one by one on Generators, or together as a static batch.

A Generator can be rewound, so a conversation's next turn computes only what is new. An Engine
decodes a whole batch for little more than the price of one answer, but on CPU its batch is static
(no request joins a running one) and takes no seeds.
"""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from .backend import PREFILL_CHUNK, Generated, Job
from .invalid_request import invalid_request
from .limits import Limits, limits_of_onnx
from .onnx_generators import GeneratorRows
from .onnx_graph import unloadable
from .onnx_static_batches import StaticBatches
from .prefix_cache import PrefixCache
from .request_scores import NO_SCORES

# read when onnxruntime-genai is imported, which is later

RESTARTABLE = 8  # tokens an answer on a Generator may have and still be begun again in a batch


def load_onnxruntime_genai() -> Any:
    """Import onnxruntime-genai with its telemetry off."""
    import onnxruntime_genai as og

    og.disable_telemetry_events()
    return og


class OnnxBackend:
    """Generates with one ONNX folder.

    Args:
        folder: holds genai_config.json.
        threads: intra-op threads.
        max_batch_size: answers generated side by side.
        prefix_cache_bytes: KV cache kept across turns; 0 switches reuse off.
        execution_provider: 'cpu', 'cuda', 'dml', …; None takes what the folder was built for.
        provider_options: options of the execution provider, as text.
        limits: what ends an answer, how long a text may be, where its rotary embeddings change;
            None reads the folder's own.

    Raises:
        MlflowException: the folder cannot be loaded, or the execution provider is missing.
    """

    joins = False

    def __init__(
        self,
        folder: Path,
        *,
        threads: int,
        max_batch_size: int,
        prefix_cache_bytes: int,
        execution_provider: str | None,
        provider_options: dict[str, str],
        limits: Limits | None = None,
    ) -> None:
        limits = limits or limits_of_onnx(folder)
        self._og = load_onnxruntime_genai()
        settings = json.loads((folder / "genai_config.json").read_text("utf-8"))
        decoder = settings["model"]["decoder"]
        width = 4 if (execution_provider or "cpu") == "cpu" else 2
        vocabulary = int(settings["model"]["vocab_size"])
        self._max_batch_size = max_batch_size
        self._rope_border = limits.rope_border
        # a cache as wide as the window cannot be smaller, and what left it cannot be rewound to:
        # such a folder answers one by one
        ring = decoder.get("sliding_window", {})
        self._cache_window = (
            min(int(ring["window_size"]), limits.context_length) if ring.get("layers") else 0
        )
        self._model = self._load(folder, threads, execution_provider, provider_options)
        self.cache = PrefixCache(0 if self._cache_window else prefix_cache_bytes)
        self.generators = GeneratorRows(
            self._og,
            self._model,
            limits=limits,
            least_capacity=self._cache_window,
            vocabulary=vocabulary,
            token_bytes=2
            * decoder["num_hidden_layers"]
            * decoder["num_key_value_heads"]
            * decoder["head_size"]
            * width,
            cache=self.cache,
        )
        self.batches = StaticBatches(
            self._og,
            self._model,
            eos=limits.eos_token_ids,
            vocabulary=vocabulary,
            max_batch_size=max_batch_size,
        )

    def _load(
        self, folder: Path, threads: int, provider: str | None, options: dict[str, str]
    ) -> Any:
        overlay = {
            "engine": {"static_batching": {"max_batch_size": self._max_batch_size}},
            "model": {"decoder": {"session_options": {"intra_op_num_threads": threads}}},
        }
        try:
            config = self._og.Config(str(folder))
            config.overlay(json.dumps(overlay))
            if provider is not None:
                config.clear_providers()
                if provider != "cpu":
                    config.append_provider(provider)
                    for key, value in options.items():
                        config.set_provider_option(provider, key, str(value))
            return self._og.Model(config)
        except Exception as error:
            raise unloadable(provider or "as built", error) from error

    # --- the scheduler's side

    def room_for(self, jobs: Sequence[Job]) -> int:
        """How many of the first jobs may be started now."""
        return min(len(jobs), self._max_batch_size - len(self.generators) - len(self.batches))

    def busy(self) -> bool:
        """Whether anything is unfinished."""
        return bool(self.generators or self.batches)

    def start(self, jobs: list[Job]) -> None:
        """Begin jobs: those that the prefix cache saves more than a batch would alone, the others
        together where they can be.
        """
        together: list[Job] = []
        for job in jobs:
            if job.request.logit_bias or job.request.logprobs is not None:
                field = "logit_bias" if job.request.logit_bias else "logprobs"
                job.fail(invalid_request(field, "given", "none", NO_SCORES))
            elif not self._batchable(job) or self._reuses(job, lone=len(jobs) == 1):
                self.generators.start(job)
            else:
                together.append(job)
        if not together:
            return
        young = [job for job in self.generators.young(RESTARTABLE) if self._batchable(job)]
        if len(together) + len(young) == 1 or self._max_batch_size == 1:
            for job in together:
                self.generators.start(job)
            return
        for job in young:  # it came a moment before the others: cheaper for all inside their batch
            self.generators.withdraw(job)
            job.restart()
        self.batches.start([*together, *young])

    def _batchable(self, job: Job) -> bool:
        """Whether an Engine should answer a job: on CPU it takes no seed; a Generator refuses a bad
        grammar without harm to others.

        An Engine computes its prompts whole, padded to the longest: no faster than one by one, and
        in memory for all of them at once. It computes no text anew, as one that crosses LongRoPE's
        border needs.
        """
        request = job.request
        plain = (
            request.grammar is None
            and not request.penalised
            and (request.greedy or request.seed is None)
        )
        short = len(job.ids) <= PREFILL_CHUNK and (
            self._rope_border is None or len(job.ids) + request.max_tokens <= self._rope_border
        )
        return plain and short and not self._cache_window

    def _reuses(self, job: Job, *, lone: bool) -> bool:
        """Whether a job had better go on with a kept conversation than join a batch.

        It saves computing the tokens that are kept, and loses the batch's cheaper decoding for each
        token of its answer.
        """
        cached = self.generators.cached(job)
        return cached * 2 >= len(job.ids) and (lone or cached > job.request.max_tokens)

    def step(self) -> Iterator[Generated]:
        """Generate one token for every job."""
        yield from self.generators.step()
        yield from self.batches.step()

    def stop(self, job: Job) -> None:
        """Drop a job."""
        if not self.generators.stop(job):
            self.batches.stop(job)

    def close(self) -> None:
        """Free generators and engines before the model they stand on."""
        self.generators.close()
        self.cache.clear()
        self.batches.close()
        self._model = None
