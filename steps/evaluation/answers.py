"""Answers of a candidate to a pack, kept as they come so that an interrupted evaluation continues
from the items it has.
"""

import hashlib
import json
import os
import time
from collections import deque
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from steps.core.redaction import redact
from steps.evaluation import machine
from steps.evaluation.packs import Item, Pack
from steps.evaluation.worker_process import CandidateProcess


@dataclass(frozen=True)
class Answer:
    """What a candidate said to one item; times in seconds, while it answered other items as
    well.
    """

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
        concurrent_items: how many items are asked at once: each other's company may change the last
            bits of their arithmetic, and does change their latencies.
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
        concurrent_items: int = 1,
    ) -> None:
        parts = [
            model_digest,
            pack_digest,
            max_new_tokens,
            reasoning_tokens,
            concurrent_items,
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
    concurrent_items: int = 1,
) -> list[Answer]:
    """Ask every item that the store has no answer to; answers in the pack's order.

    Args:
        process: a loaded candidate.
        pack: its items.
        max_new_tokens: tokens of an answer whose item has no limit of its own.
        store: gets each answer when it comes.
        advance: told each item when its answer is there.
        reasoning_tokens: further tokens for reasoning.
        concurrent_items: items that are asked at once; the next one is asked when any is answered.

    Raises:
        CandidateFailedError: the process is gone; what was answered is in the store.
    """
    known = store.read()
    answers = {item.id: known[item.id] for item in pack.items if item.id in known}
    for item in pack.items:
        if item.id in answers:
            advance(item)
    # by number: the names of items are not in what the candidate's own code could say
    waiting = deque(
        (number, item) for number, item in enumerate(pack.items) if item.id not in answers
    )
    asked: dict[int, tuple[Item, float]] = {}
    while waiting or asked:
        begin: list[dict[str, Any]] = []
        while waiting and len(asked) < concurrent_items:
            number, item = waiting.popleft()
            asked[number] = (item, time.time())
            begin.append(
                {
                    "number": number,
                    "messages": [dict(message) for message in item.messages],
                    "max_tokens": item.max_tokens or max_new_tokens,
                    "reasoning_tokens": reasoning_tokens,
                }
            )
        # a model that answers one after the other, or all at the end, may take the time of all
        said = process.ask("answer_next", requests=len(asked), begin=begin)
        if said["number"] not in asked:
            raise process.broken("answer_next", f"item {said['number']} was not asked")
        item, started = asked.pop(said["number"])
        answer = _answer(item, said, started)
        store.add(answer)
        advance(item)
        answers[item.id] = answer
    return [answers[item.id] for item in pack.items]


def _answer(item: Item, said: dict[str, Any], started: float) -> Answer:
    if said["error"] is not None:
        latency = time.time() - started
        return Answer(item.id, "", None, 0, latency, started, redact(said["error"]))
    return Answer(item.id, **said["answer"], started=started)
