"""Fidelity of a conversion to its checkpoint: both are forced through the same tokens and their
next-token distributions compared.

The reference and each conversion have a process of their own; the reference computes one window
ahead. Windows of logits pass between them as two files that are overwritten in turn, so memory and
disk stay bounded. What is kept of a token is four numbers.
"""

import itertools
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TypeVar

from steps.config.evaluate import FidelityConfig
from steps.evaluation.fidelity_comparison import Comparison
from steps.evaluation.fidelity_texts import CONVERSATIONS, long_text, texts, windows
from steps.evaluation.worker_process import CandidateProcess

LOAD_REQUESTS = 5  # how many times evaluate.request_timeout opening a folder may take
PAST_BORDER = 64  # tokens compared past each length at which attention or positions change
Item = TypeVar("Item")


def measure(
    reference: CandidateProcess,
    reference_folder: Path,
    conversions: Mapping[str, tuple[CandidateProcess, Path]],
    config: FidelityConfig,
    workdir: Path,
    guard: Callable[[str, Callable[[], None]], None],
    advance: Callable[[int], None],
) -> dict[str, Comparison]:
    """Compare conversions with their checkpoint.

    Args:
        reference: a started process for the checkpoint in ``reference_folder``.
        conversions: started processes and onnxruntime-genai folders by name.
        guard: runs one conversion's part and keeps its failure to itself.
        advance: told the number of tokens after each window.

    Raises:
        CandidateFailedError, ModelError: the reference failed.
    """
    comparisons = {name: Comparison() for name in conversions}
    with ThreadPoolExecutor(len(conversions)) as pool:  # opening is mostly imports, on one core
        openings = [
            pool.submit(guard, name, partial(_open, comparisons[name], process, folder))
            for name, (process, folder) in conversions.items()
        ]
        opened = reference.ask(
            "open_meter", requests=LOAD_REQUESTS, kind="checkpoint", folder=str(reference_folder)
        )
        for opening in openings:
            opening.result()
    bos, borders = opened["bos"], opened["borders"]
    for comparison in comparisons.values():
        comparison.borders = [
            border for border in borders if border + 2 * PAST_BORDER < comparison.context
        ]
    files = (workdir / "even.npy", workdir / "odd.npy")
    file = files[0]

    def tokenize(piece: str) -> list[int]:
        return list(reference.ask("tokenize", text=piece))

    def written() -> Iterator[tuple[str, list[int], Path]]:
        pieces = windows(texts(config.texts), tokenize, bos, config.window, config.tokens)
        for (text, ids), target in zip(pieces, itertools.cycle(files), strict=False):
            reference.ask("write_logits", ids=ids, file=str(target))
            yield text, ids, target

    for text, ids, target in _one_ahead(written()):
        for name, (process, _) in conversions.items():
            comparisons[name].windows += 1
            guard(name, partial(_add, comparisons[name], process, text, ids, target))
        advance(len(ids))
    for border in borders:
        if not any(border in comparison.borders for comparison in comparisons.values()):
            continue  # no conversion goes as far
        # what is compared has to begin past it
        ids = long_text(texts(config.texts), tokenize, bos, border + 2 * PAST_BORDER)
        reference.ask(
            "write_logits", requests=LOAD_REQUESTS, ids=ids, file=str(file), last=PAST_BORDER
        )
        for name, (process, _) in conversions.items():
            if border in comparisons[name].borders:
                guard(name, partial(_past, comparisons[name], process, border, ids, file))
    for file in files:
        file.unlink(missing_ok=True)
    tokens = config.continuation_tokens

    def continued() -> Iterator[tuple[list[dict[str, str]], list[int] | None, list[int] | None]]:
        left = config.continuations
        for messages in CONVERSATIONS:
            prompt = reference.ask("render", messages=messages)
            if prompt is None or left == 0:
                yield messages, prompt, None
                continue
            left -= 1
            yield (
                messages,
                prompt,
                reference.ask("continue_greedily", ids=prompt, tokens=tokens),
            )

    for messages, prompt, wanted in _one_ahead(continued()):
        for name, (process, _) in conversions.items():
            comparisons[name].prompt_lengths.append(None if prompt is None else len(prompt))
            if prompt is not None:
                guard(name, partial(_render, comparisons[name], process, messages, prompt))
            if prompt is not None and wanted is not None:
                part = partial(_continue, comparisons[name], process, prompt, wanted, tokens)
                guard(name, part)
    return comparisons


def _one_ahead(items: Iterator[Item]) -> Iterator[Item]:
    """The same items; the next one is made, in a thread, while one is looked at."""
    none = object()
    with ThreadPoolExecutor(1) as pool:
        coming: Future[Item | object] = pool.submit(next, items, none)
        while (item := coming.result()) is not none:
            coming = pool.submit(next, items, none)
            yield item  # type: ignore[misc]


def _open(comparison: Comparison, process: CandidateProcess, folder: Path) -> None:
    opened = process.ask("open_meter", requests=LOAD_REQUESTS, kind="onnx", folder=str(folder))
    comparison.context = opened["context"]


def _past(
    comparison: Comparison, process: CandidateProcess, border: int, ids: list[int], file: Path
) -> None:
    values = process.ask(
        "compare_logits", requests=LOAD_REQUESTS, ids=ids, file=str(file), last=PAST_BORDER
    )
    comparison.past[border] = sum(values["kl"]) / len(values["kl"])


def _add(
    comparison: Comparison, process: CandidateProcess, text: str, ids: list[int], file: Path
) -> None:
    values = process.ask("compare_logits", ids=ids, file=str(file))
    start = len(comparison.kl)
    comparison.kl += values["kl"]
    comparison.agree += values["agree"]
    comparison.nll += values["nll"]
    comparison.nll_reference += values["nll_reference"]
    comparison.spans.append((text, start, len(comparison.kl)))


def _render(
    comparison: Comparison,
    process: CandidateProcess,
    messages: list[dict[str, str]],
    prompt: list[int],
) -> None:
    comparison.prompts_equal.append(process.ask("render", messages=messages) == prompt)


def _continue(
    comparison: Comparison,
    process: CandidateProcess,
    prompt: list[int],
    wanted: list[int],
    tokens: int,
) -> None:
    got = process.ask("continue_greedily", ids=prompt, tokens=tokens)
    pairs = zip(wanted, got, strict=False)
    shared = len(list(itertools.takewhile(lambda pair: pair[0] == pair[1], pairs)))
    # both may end early, with the same last token
    comparison.divergence.append(tokens if got == wanted else shared)
    comparison.continued = tokens
