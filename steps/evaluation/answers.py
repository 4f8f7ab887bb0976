"""Answers of a candidate to a pack, kept as they come so that an interrupted evaluation continues
from the items it has.
"""

import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from steps.evaluation import machine
from steps.evaluation.packs import Item, Pack
from steps.evaluation.worker_process import CandidateProcess, ModelError


@dataclass(frozen=True)
class Answer:
    """What a candidate said to one item; times in seconds."""

    item: str
    text: str
    finish_reason: str | None
    completion_tokens: int
    latency_s: float
    started: float  # seconds since the epoch
    error: str | None = None


class AnswerStore:
    """Answers of one model to one pack under one setting, one JSON line each.

    An answer stays as it was only while the packages that made it do, so their versions are in the
    key. Errors are not kept: they are asked again.

    Args:
        folder: where the files are; one file a key.
        model_digest: digest of the logged model's files; ``unknown`` keeps nothing, as the bytes
            cannot be recognised.
        pack_digest: digest of the pack's items.
        max_new_tokens: the setting that an item without a limit of its own is answered under.
        reasoning_tokens: the setting that a model which reasons is answered under.
        model_id: tells two logged models of the same bytes apart, which are timed each for itself.
    """

    def __init__(
        self,
        folder: Path,
        model_digest: str,
        pack_digest: str,
        max_new_tokens: int,
        model_id: str = "",
        reasoning_tokens: int = 0,
    ) -> None:
        parts = [
            model_digest,
            pack_digest,
            max_new_tokens,
            reasoning_tokens,
            model_id,
            sorted(machine.packages().items()),
        ]
        key = hashlib.sha256(json.dumps(parts).encode()).hexdigest()
        self.path = folder / f"{key}.jsonl" if model_digest != "unknown" else None

    def read(self) -> dict[str, Answer]:
        """Whole answers by item; a last line cut by a kill is left out."""
        if self.path is None or not self.path.is_file():
            return {}
        answers = {}
        # not splitlines: a text may hold U+2028
        for line in self.path.read_text(encoding="utf-8").split("\n"):
            try:
                answer = Answer(**json.loads(line))
            except (ValueError, TypeError):
                # the process was killed while it wrote this line, or another version of us wrote it
                continue
            answers[answer.item] = answer
        return answers

    def add(self, answer: Answer) -> None:
        """Append one answer and see it on disk."""
        if self.path is None or answer.error is not None:
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(
                ("\n" if file.tell() else "") + json.dumps(asdict(answer), ensure_ascii=False)
            )
            file.flush()
            os.fsync(file.fileno())

    def clear(self) -> None:
        """Forget the answers: the evaluation that needed them is complete."""
        if self.path is not None:
            self.path.unlink(missing_ok=True)


def collect(
    process: CandidateProcess,
    pack: Pack,
    max_new_tokens: int,
    store: AnswerStore,
    advance: Callable[[Item], None],
    *,
    reasoning_tokens: int = 0,
) -> Iterator[Answer]:
    """Ask every item that the store has no answer to; answers in the pack's order.

    Raises:
        CandidateFailedError: the process is gone; what was answered is in the store.
    """
    known = store.read()
    for item in pack.items:
        answer = known.get(item.id)
        if answer is None:
            started = time.time()
            try:
                said = process.ask(
                    "answer",
                    messages=[dict(message) for message in item.messages],
                    max_tokens=item.max_tokens or max_new_tokens,
                    reasoning_tokens=reasoning_tokens,
                )
                answer = Answer(
                    item.id,
                    said["text"],
                    said["finish_reason"],
                    said["completion_tokens"],
                    said["latency_s"],
                    started,
                )
            except ModelError as error:
                answer = Answer(item.id, "", None, 0, time.time() - started, started, str(error))
            store.add(answer)
        advance(item)
        yield answer
