"""Generation with onnxruntime-genai: lone requests on a Generator of their own, those that come together as one batch.

Why two ways: a Generator can be rewound, so a conversation's next turn computes only what is new; an Engine decodes a whole batch for
little more than the price of one, but on CPU its batch is static (nobody joins a running one) and takes no seeds.
"""

import json
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE

from .contract import Request
from .driver import Job
from .prefix_cache import Kept, PrefixCache
from .refusal import refusal

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # read when onnxruntime-genai is imported, which is later

ROUND = 64  # KV caches are sized in multiples of this many tokens
NEXT_TURNS = 256  # tokens of room, at least, that a conversation's KV cache gets for the turns that may follow
PIECE = 256  # prompt tokens computed at once: the logits of each are held, 4 bytes for every entry of the vocabulary
RESTARTABLE = 8  # tokens a lone answer may have and still be begun again inside a batch


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


@dataclass
class Wave:
    """A static batch on an Engine of its own."""

    engine: Any
    buffer: Any
    jobs: dict[int, tuple[Job, Any, int]] = field(default_factory=dict)  # id of the engine's request → job, request, turn


def load_onnxruntime_genai() -> Any:
    """Import onnxruntime-genai with its telemetry off."""
    import onnxruntime_genai as og

    og.disable_telemetry_events()
    return og


class OnnxCore:
    """Core of the driver over one ONNX folder.

    Args:
        folder: holds genai_config.json.
        threads: intra-op threads.
        max_batch_size: answers generated side by side.
        prefix_cache_bytes: KV cache kept across turns; 0 switches reuse off.
        execution_provider: 'cpu', 'cuda', 'dml', …; None takes what the folder was built for.
        provider_options: options of the execution provider, as text.

    Raises:
        MlflowException: the folder cannot be loaded, or the execution provider is missing.
    """

    def __init__(
        self,
        folder: Path,
        *,
        threads: int,
        max_batch_size: int,
        prefix_cache_bytes: int,
        execution_provider: str | None,
        provider_options: dict[str, str],
    ) -> None:
        self._og = load_onnxruntime_genai()
        settings = json.loads((folder / "genai_config.json").read_text("utf-8"))
        decoder = settings["model"]["decoder"]
        width = 4 if (execution_provider or "cpu") == "cpu" else 2
        self._token_bytes = 2 * decoder["num_hidden_layers"] * decoder["num_key_value_heads"] * decoder["head_size"] * width
        self._context_length = int(settings["model"]["context_length"])
        eos = settings["model"]["eos_token_id"]
        self._eos = set(eos if isinstance(eos, list) else [eos])
        self._max_batch_size = max_batch_size
        self._model = self._load(folder, threads, execution_provider, provider_options)
        self.cache = PrefixCache(prefix_cache_bytes)
        self._solos: list[Solo] = []
        self._waves: list[Wave] = []
        self._idle_waves: list[Wave] = []

    def _load(self, folder: Path, threads: int, provider: str | None, options: dict[str, str]) -> Any:
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
            raise MlflowException(
                f"the ONNX model cannot be loaded with execution_provider={provider or 'as built'!r}: {error}; "
                "install the onnxruntime-genai package of that provider, or load with model_config={'execution_provider': 'cpu'}",
                error_code=INVALID_PARAMETER_VALUE,
            ) from error

    # --- the driver's side

    def room(self) -> int:
        """Jobs that may still be started."""
        return self._max_batch_size - len(self._solos) - sum(len(wave.jobs) for wave in self._waves)

    def busy(self) -> bool:
        """Whether anything is unfinished."""
        return bool(self._solos or self._waves)

    def start(self, jobs: list[Job]) -> None:
        """Begin jobs: those whose prompt is mostly in the prefix cache alone, the others together where they can be."""
        together: list[Job] = []
        for job in jobs:
            found = self.cache.find(job.ids) if _rewindable(job.request) else None
            if not _batchable(job) or (found is not None and found[1] * 2 >= len(job.ids)):
                self._start_alone(job)
            else:
                together.append(job)
        if not together:
            return
        young = [solo for solo in self._solos if _batchable(solo.job) and solo.produced <= RESTARTABLE and not solo.job.cached_tokens]
        young = [solo for solo in young if not (solo.job.streams and solo.job.tokens)]
        if len(together) + len(young) == 1 or self._max_batch_size == 1:
            for job in together:
                self._start_alone(job)
            return
        for solo in young:  # it came a moment before the others: cheaper for all inside their batch
            self._solos.remove(solo)
            solo.job.restart()
            together.append(solo.job)
        self._start_together(together)

    def step(self) -> Iterator[tuple[Job, int | None, str | None]]:
        """Generate one token for every job."""
        for solo in list(self._solos):
            yield from self._step_alone(solo)
        for wave in list(self._waves):
            yield from self._step_together(wave)

    def stop(self, job: Job) -> None:
        """Drop a job."""
        for solo in self._solos:
            if solo.job is job:
                self._solos.remove(solo)
                self._retire(solo)
                return
        for wave in self._waves:
            for key, (other, request, turn) in wave.jobs.items():
                if other is job:
                    request.cancel_turn(turn)
                    request.close()
                    del wave.jobs[key]
                    self._rest(wave)
                    return

    def close(self) -> None:
        """Free generators and engines before the model they stand on."""
        self._solos.clear()
        self.cache.clear()
        for wave in [*self._waves, *self._idle_waves]:
            for _, request, _ in wave.jobs.values():
                request.close()
            wave.jobs.clear()
        self._waves.clear()
        self._idle_waves.clear()
        self._model = None

    # --- alone

    def _start_alone(self, job: Job) -> None:
        request = job.request
        need = len(job.ids) + request.max_tokens
        if _rewindable(request) and self.cache.budget:
            found = self.cache.find(job.ids)
            if found is not None:
                kept, shared = found
                self.cache.take(kept)
                if kept.capacity >= need:
                    kept.generator.rewind_to(shared)
                    _append(kept.generator, job.ids[shared:])
                    job.cached_tokens = shared
                    self._solos.append(Solo(job, kept.generator, list(job.ids), kept.capacity))
                    return
                need += need  # a conversation that outgrew its cache gets room for as much again
            elif request.messages is not None:
                need += max(NEXT_TURNS, need // 2)
            need = max(len(job.ids) + request.max_tokens, min(need, self.cache.budget // self._token_bytes))
        capacity = min(-(-need // ROUND) * ROUND, self._context_length)
        parameters = self._og.GeneratorParams(self._model)
        options: dict[str, Any] = {
            "max_length": capacity,
            "do_sample": not request.greedy,
            "repetition_penalty": request.repetition_penalty,
        }
        if request.min_tokens:
            options["min_length"] = min(len(job.ids) + request.min_tokens, capacity)
        if not request.greedy:
            options |= {"temperature": request.temperature, "top_p": request.top_p, "top_k": request.top_k, "random_seed": job.seed}
        parameters.set_search_options(**options)
        if request.grammar is not None:
            parameters.set_guidance(request.grammar.kind, request.grammar.text)
        try:
            generator = self._og.Generator(self._model, parameters)
        except Exception as error:
            if request.grammar is None:
                raise
            job.fail(refusal("response_format", request.grammar.text, f"a grammar that can be compiled ({error})"))
            return
        _append(generator, job.ids)
        self._solos.append(Solo(job, generator, list(job.ids), capacity))

    def _step_alone(self, solo: Solo) -> Iterator[tuple[Job, int | None, str | None]]:
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
            self._solos.remove(solo)
            self._retire(solo)
        yield solo.job, token, reason

    def _retire(self, solo: Solo) -> None:
        if _rewindable(solo.job.request):
            self.cache.keep(Kept(solo.generator, solo.tokens, solo.capacity, solo.capacity * self._token_bytes))

    # --- together

    def _start_together(self, jobs: list[Job]) -> None:
        wave = self._idle_waves.pop() if self._idle_waves else self._new_wave()
        self._waves.append(wave)
        for job in jobs:
            request = job.request
            options = self._og.RequestOptions()
            options.set_max_session_tokens(len(job.ids) + request.max_tokens)
            handle = wave.engine.create_request(options=options)
            turn = self._og.TurnOptions(handle)
            turn.set_max_generated_tokens(request.max_tokens)
            turn.set_min_generated_tokens(request.min_tokens)
            turn.set_repetition_penalty(request.repetition_penalty)
            turn.set_do_sample(not request.greedy)
            if not request.greedy:
                turn.set_temperature(request.temperature)
                turn.set_top_p(request.top_p)
                turn.set_top_k(request.top_k)
            wave.jobs[id(handle)] = (job, handle, handle.begin_turn(job.ids, turn))

    def _new_wave(self) -> Wave:
        engine = self._og.Engine(self._model)
        return Wave(engine, engine.create_event_buffer(4 * self._max_batch_size))

    def _step_together(self, wave: Wave) -> Iterator[tuple[Job, int | None, str | None]]:
        events = [(id(event.request), event.token, event.finish_reason.name) for event in wave.engine.run(wave.buffer)]
        for key, token, finish in events:
            if key not in wave.jobs:
                continue
            job, handle, _ = wave.jobs[key]
            reason = {"NONE": None, "EOS": "stop", "MAX_GENERATED_TOKENS": "length", "MAX_SESSION_TOKENS": "length"}.get(finish, "error")
            if token is None and finish == "EOS":
                token = min(self._eos)  # the engine ends on the end token without showing it; it was generated all the same
            if reason is not None:
                del wave.jobs[key]
                handle.close()
            yield job, token, reason
        self._rest(wave)

    def _rest(self, wave: Wave) -> None:
        if not wave.jobs and wave in self._waves:
            self._waves.remove(wave)
            self._idle_waves.append(wave)


def _penalise(solo: Solo) -> None:
    request = solo.job.request
    logits = solo.generator.get_logits().copy()  # (1, 1, vocabulary), float32
    tokens = list(solo.counts)
    logits[0, -1, tokens] -= [request.presence_penalty + request.frequency_penalty * solo.counts[token] for token in tokens]
    solo.generator.set_logits(logits)


def _append(generator: Any, ids: list[int]) -> None:
    """Compute a prompt piece by piece: as fast as at once, in a fraction of the memory."""
    for start in range(0, len(ids), PIECE):
        generator.append_tokens(ids[start : start + PIECE])


def _batchable(job: Job) -> bool:
    """Whether an Engine should answer a job: on CPU it takes no seed; a Generator refuses a bad grammar without harm to others.

    An Engine computes its prompts whole, padded to the longest: no faster than one by one, and in memory for all of them at once.
    """
    request = job.request
    if len(job.ids) > PIECE:
        return False
    return request.grammar is None and not request.penalised and (request.greedy or request.seed is None)


def _rewindable(request: Request) -> bool:
    """Whether a Generator can go on with it: its search options are fixed, so only plain greedy answers share one."""
    plain = request.grammar is None and not request.penalised and request.repetition_penalty == 1 and request.min_tokens == 0
    return request.greedy and plain
