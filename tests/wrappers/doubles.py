"""Doubles of a decoder, a backend and a model with something to say."""

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from steps.wrappers.served.backend import Backend, Generated, Job
from steps.wrappers.served.onnx_model import OnnxChatModel
from steps.wrappers.served.sampling import Sampler


class PieceDecoder:
    """Stands for a tokenizer's decoder: decodes every token by itself, nothing held back.

    Args:
        text: of a token.
    """

    def __init__(self, text: Callable[[int], str]) -> None:
        self._text = text

    def __call__(self, token: int) -> str:
        return self._text(token)

    def finish(self) -> str:
        return ""


class Saying:
    """A backend that answers everything with the same tokens: small models do not call a tool when
    they are told to.
    """

    def __init__(self, tokens: list[int]) -> None:
        self.tokens = tokens
        self.jobs: list[tuple[Job, list[int]]] = []
        self.prompts: list[list[int]] = []

    joins = True

    def room_for(self, jobs: Sequence[Job]) -> int:
        return min(len(jobs), 4)

    def busy(self) -> bool:
        return bool(self.jobs)

    def start(self, jobs: list[Job]) -> None:
        self.prompts += [job.ids for job in jobs]
        self.jobs += [(job, [*self.tokens, 0]) for job in jobs]  # the last one ends the answer

    def step(self) -> Iterator[Generated]:
        for job, left in self.jobs:
            yield job, left.pop(0), None if left else "stop"
        self.jobs = [(job, left) for job, left in self.jobs if left]

    def stop(self, job: Job) -> None:
        self.jobs = [(other, left) for other, left in self.jobs if other is not job]

    def close(self) -> None:
        self.jobs.clear()


class Scored(Saying):
    """Says the same with scores: the sampler chooses, so that settings that change scores count.

    Args:
        tokens: what it says.
        end: ends the answer.
        vocabulary: entries.
    """

    def __init__(self, tokens: list[int], end: int, vocabulary: int) -> None:
        super().__init__([*tokens, end])
        self._end, self._vocabulary = end, vocabulary
        self._samplers: dict[int, Sampler] = {}

    def start(self, jobs: list[Job]) -> None:
        super().start(jobs)
        self._samplers |= {id(job): Sampler(job, [self._end]) for job in jobs}

    def step(self) -> Iterator[Generated]:
        for job, left in self.jobs:
            scores = np.zeros(self._vocabulary, np.float32)
            scores[left.pop(0)] = 20.0
            token = self._samplers[id(job)].choose(scores)
            reason = job.finish_reason(token, len(self.tokens) - len(left) + 1, [self._end])
            left[:] = left if reason is None else []
            yield job, token, reason
        self.jobs = [(job, left) for job, left in self.jobs if left]


class SayingModel(OnnxChatModel):
    """The ONNX variant with what it says in the place of the engine."""

    scores = False
    says = ""

    def make_backend(self) -> Backend:
        return Saying(self.tokenizer.encode(self.says))

    @property
    def prompts(self) -> list[list[int]]:
        """Ids of the prompts that reached the backend."""
        backend = self.scheduler().backend
        assert isinstance(backend, Saying)
        return backend.prompts


class ScoredModel(SayingModel):
    """The same, on an engine that shows scores."""

    scores = True

    def make_backend(self) -> Backend:
        end = self.limits.eos_token_ids[0]
        return Scored(self.tokenizer.encode(self.says), end, self.tokenizer.vocabulary)
