"""Answers that came together with onnxruntime-genai: static batches, each on an Engine."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from .contract import Request
from .scheduler import Job, broken

REASONS = {
    "NONE": None,
    "EOS": "stop",
    "MAX_GENERATED_TOKENS": "length",
    "MAX_SESSION_TOKENS": "length",
}


@dataclass(eq=False)
class Wave:
    """A static batch on an Engine of its own."""

    engine: Any
    buffer: Any
    # id of the engine's request → job, request, turn
    jobs: dict[int, tuple[Job, Any, int]] = field(default_factory=dict)


class Waves:
    """The batches of one model. One Engine at rest is used again, others go with their batch.

    An Engine keeps the KV caches of its last batch, so many at rest would hold much memory; but a
    new one for each batch leaves the allocator with pieces of all sizes, which holds even more.

    Args:
        og: the onnxruntime_genai module.
        model: its Model.
        eos: token ids that end an answer.
        vocabulary: entries of the vocabulary.
        max_batch_size: answers in one batch.
    """

    def __init__(
        self, og: Any, model: Any, *, eos: set[int], vocabulary: int, max_batch_size: int
    ) -> None:
        self._og, self._model, self._eos = og, model, eos
        self._vocabulary, self._max_batch_size = vocabulary, max_batch_size
        self._running: list[Wave] = []
        self._idle: Wave | None = None

    def __len__(self) -> int:
        return sum(len(wave.jobs) for wave in self._running)

    def start(self, jobs: list[Job]) -> None:
        """Begin a batch; a job that the engine does not take is failed alone."""
        wave, self._idle = self._idle or self._new(), None
        engine = wave.engine
        for job in jobs:
            options = self._og.RequestOptions()
            options.set_max_session_tokens(len(job.ids) + job.request.max_tokens)
            handle = engine.create_request(options=options)
            try:
                turn = handle.begin_turn(job.ids, self._turn(job.request, handle))
            except Exception as error:  # noqa: BLE001 - whatever the engine says of this job, the others go on
                handle.close()
                job.fail(broken(error))
                continue
            wave.jobs[id(handle)] = (job, handle, turn)
        if wave.jobs:
            self._running.append(wave)

    def _new(self) -> Wave:
        engine = self._og.Engine(self._model)
        return Wave(engine, engine.create_event_buffer(4 * self._max_batch_size))

    def _turn(self, request: Request, handle: Any) -> Any:
        turn = self._og.TurnOptions(handle)
        turn.set_max_generated_tokens(request.max_tokens)
        turn.set_min_generated_tokens(request.min_tokens)
        turn.set_repetition_penalty(request.repetition_penalty)
        turn.set_do_sample(not request.greedy)
        if not request.greedy:
            turn.set_temperature(request.temperature)
            turn.set_top_p(request.top_p)
            turn.set_top_k(min(request.top_k, self._vocabulary))
        return turn

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
        self._idle = None
        self._model = None

    def _advance(self, wave: Wave) -> Iterator[tuple[Job, int | None, str | None]]:
        try:
            events = [
                (id(event.request), event.token, event.finish_reason.name)
                for event in wave.engine.run(wave.buffer)
            ]
        except Exception as error:  # noqa: BLE001 - the batch is lost; the other answers go on
            self._running.remove(wave)
            for job, _, _ in wave.jobs.values():
                job.fail(broken(error))
                yield job, None, "error"
            return
        for key, token, finish in events:
            if key not in wave.jobs:
                continue
            job, handle, _ = wave.jobs[key]
            reason = REASONS.get(finish, "error")
            if token is None and finish == "EOS":
                # the engine ends on the end token without showing it; it was generated all the same
                token = min(self._eos)
            if reason is not None:
                del wave.jobs[key]
                handle.close()
            yield job, token, reason
        self._rest(wave)

    def _rest(self, wave: Wave) -> None:
        if not wave.jobs and wave in self._running:
            self._running.remove(wave)
            self._idle = wave
