"""Doubles of a decoder, a backend and a model with something to say."""

from collections.abc import Callable, Iterator, Sequence

from steps.wrappers.served.backend import Backend, Generated, Job
from steps.wrappers.served.onnx_model import OnnxChatModel


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


class SayingModel(OnnxChatModel):
    """The ONNX variant with what it says in the place of the engine."""

    says = ""

    def make_backend(self) -> Backend:
        return Saying(self.tokenizer.encode(self.says))

    @property
    def prompts(self) -> list[list[int]]:
        """Ids of the prompts that reached the backend."""
        backend = self.scheduler().backend
        assert isinstance(backend, Saying)
        return backend.prompts
