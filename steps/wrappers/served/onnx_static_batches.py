"""Answers that came together with onnxruntime-genai, as static batches, each on an Engine."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from .backend import Generated, Job, engine_error
from .onnx_options import turn_options

REASONS = {
    "NONE": None,
    "EOS": "stop",
    "MAX_GENERATED_TOKENS": "length",
    "MAX_SESSION_TOKENS": "length",
}


@dataclass(eq=False)
class StaticBatch:
    """A static batch on an Engine of its own."""

    engine: Any
    buffer: Any
    # id of the engine's request → job, request, turn
    jobs: dict[int, tuple[Job, Any, int]] = field(default_factory=dict)


class StaticBatches:
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
        self, og: Any, model: Any, *, eos: Sequence[int], vocabulary: int, max_batch_size: int
    ) -> None:
        self.og, self._model, self._eos = og, model, eos
        self.vocabulary, self._max_batch_size = vocabulary, max_batch_size
        self._running: list[StaticBatch] = []
        self._idle: StaticBatch | None = None

    def __len__(self) -> int:
        return sum(len(batch.jobs) for batch in self._running)

    def start(self, jobs: list[Job]) -> None:
        """Begin a batch; a job that the engine does not take is failed alone."""
        batch, self._idle = self._idle or self._new(), None
        engine = batch.engine
        for job in jobs:
            session = self.og.RequestOptions()
            session.set_max_session_tokens(len(job.ids) + job.request.max_tokens)
            handle = engine.create_request(options=session)
            try:
                turn = handle.begin_turn(
                    job.ids, turn_options(self.og, handle, job.request, self.vocabulary)
                )
            except Exception as error:  # noqa: BLE001 - whatever the engine says of this job, the others go on
                handle.close()
                job.fail(engine_error(error))
                continue
            batch.jobs[id(handle)] = (job, handle, turn)
        if batch.jobs:
            self._running.append(batch)

    def _new(self) -> StaticBatch:
        engine = self.og.Engine(self._model)
        return StaticBatch(engine, engine.create_event_buffer(4 * self._max_batch_size))

    def step(self) -> Iterator[Generated]:
        """Generate one token for each."""
        for batch in list(self._running):
            yield from self._advance(batch)

    def stop(self, job: Job) -> bool:
        """Drop a job; whether it was here."""
        for batch in self._running:
            for key, (other, handle, turn) in batch.jobs.items():
                if other is job:
                    handle.cancel_turn(turn)
                    handle.close()
                    del batch.jobs[key]
                    self._rest(batch)
                    return True
        return False

    def close(self) -> None:
        """Free every engine and let the model go."""
        for batch in self._running:
            for _, handle, _ in batch.jobs.values():
                handle.close()
            batch.jobs.clear()
        self._running.clear()
        self._idle = None
        self._model = None

    def _advance(self, batch: StaticBatch) -> Iterator[Generated]:
        try:
            events = [
                (id(event.request), event.token, event.finish_reason.name)
                for event in batch.engine.run(batch.buffer)
            ]
        except Exception as error:  # noqa: BLE001 - the batch is lost; the other answers go on
            self._running.remove(batch)
            for job, _, _ in batch.jobs.values():
                job.fail(engine_error(error))
                yield job, None, "error"
            return
        for key, token, finish in events:
            if key not in batch.jobs:
                continue
            job, handle, _ = batch.jobs[key]
            reason = REASONS.get(finish, "error")
            if token is None and finish == "EOS":
                # the engine ends on the end token without showing it; it was generated all the same
                token = min(self._eos)
            if reason is not None:
                del batch.jobs[key]
                handle.close()
            yield job, token, reason
        self._rest(batch)

    def _rest(self, batch: StaticBatch) -> None:
        if not batch.jobs and batch in self._running:
            self._running.remove(batch)
            self._idle = batch
