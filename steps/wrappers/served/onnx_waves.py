"""Answers that came together with onnxruntime-genai: static batches, each on an Engine."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from .driver import Job

REASONS = {"NONE": None, "EOS": "stop", "MAX_GENERATED_TOKENS": "length", "MAX_SESSION_TOKENS": "length"}


@dataclass
class Wave:
    """A static batch on an Engine of its own."""

    engine: Any
    buffer: Any
    jobs: dict[int, tuple[Job, Any, int]] = field(default_factory=dict)  # id of the engine's request → job, request, turn


class Waves:
    """The batches of one model; an Engine whose batch has ended is used again.

    Args:
        og: the onnxruntime_genai module.
        model: its Model.
        eos: token ids that end an answer.
        max_batch_size: answers in one batch.
    """

    def __init__(self, og: Any, model: Any, *, eos: set[int], max_batch_size: int) -> None:
        self._og, self._model, self._eos, self._max_batch_size = og, model, eos, max_batch_size
        self._running: list[Wave] = []
        self._idle: list[Wave] = []

    def __len__(self) -> int:
        return sum(len(wave.jobs) for wave in self._running)

    def start(self, jobs: list[Job]) -> None:
        """Begin a batch."""
        wave = self._idle.pop() if self._idle else self._new()
        self._running.append(wave)
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

    def step(self) -> Iterator[tuple[Job, int | None, str | None]]:
        """Generate one token for each."""
        for wave in list(self._running):
            yield from self._advance(wave)

    def stop(self, job: Job) -> bool:
        """Drop a job; whether it was here."""
        for wave in self._running:
            for key, (other, handle, turn) in wave.jobs.items():
                if other is job:
                    handle.cancel_turn(turn)
                    handle.close()
                    del wave.jobs[key]
                    self._rest(wave)
                    return True
        return False

    def close(self) -> None:
        """Free every engine and let the model go."""
        for wave in self._running:
            for _, handle, _ in wave.jobs.values():
                handle.close()
            wave.jobs.clear()
        self._running.clear()
        self._idle.clear()
        self._model = None

    def _new(self) -> Wave:
        engine = self._og.Engine(self._model)
        return Wave(engine, engine.create_event_buffer(4 * self._max_batch_size))

    def _advance(self, wave: Wave) -> Iterator[tuple[Job, int | None, str | None]]:
        events = [(id(event.request), event.token, event.finish_reason.name) for event in wave.engine.run(wave.buffer)]
        for key, token, finish in events:
            if key not in wave.jobs:
                continue
            job, handle, _ = wave.jobs[key]
            reason = REASONS.get(finish, "error")
            if token is None and finish == "EOS":
                token = min(self._eos)  # the engine ends on the end token without showing it; it was generated all the same
            if reason is not None:
                del wave.jobs[key]
                handle.close()
            yield job, token, reason
        self._rest(wave)

    def _rest(self, wave: Wave) -> None:
        if not wave.jobs and wave in self._running:
            self._running.remove(wave)
            self._idle.append(wave)
