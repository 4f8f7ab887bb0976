"""Fidelity of a conversion to its checkpoint: both are forced through the same tokens and their
next-token distributions compared.

The reference and each conversion have a process of their own; windows of logits pass between them
as one file that is overwritten, so memory and disk stay bounded. What is kept of a token is four
numbers.
"""

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from steps.config.evaluate import FidelityConfig
from steps.core.errors import ConfigError
from steps.evaluation import statistics
from steps.evaluation.worker_process import CandidateProcess

TEXTS = Path(__file__).with_name("texts")
LOAD_REQUESTS = 5  # how many times evaluate.request_timeout opening a folder may take
PIECE = 4000  # characters tokenised at once
PAST_BORDER = 64  # tokens compared past each length at which attention or positions change
CONVERSATIONS: tuple[list[dict[str, str]], ...] = (
    [{"role": "user", "content": "What is the capital of France?"}],
    [{"role": "user", "content": "Write a short story about a lighthouse keeper."}],
    [
        {"role": "system", "content": "You are brief."},
        {"role": "user", "content": "Why is the sky blue?"},
    ],
    [
        {"role": "user", "content": "Name three fruits."},
        {"role": "assistant", "content": "Apple, pear and plum."},
        {"role": "user", "content": "Which of them is the sweetest?"},
    ],
    [{"role": "user", "content": "Explain how to boil an egg.\n\nUse a list."}],
    [{"role": "user", "content": "Übersetze ins Englische: Guten Morgen, wie geht es dir?"}],
    [{"role": "user", "content": "def add(a, b):\n    return"}],
    [{"role": "user", "content": "Give me advice for a first day at work."}],
)


@dataclass
class Comparison:
    """What was measured of one conversion; lists have one value a token."""

    kl: list[float] = field(default_factory=list)
    agree: list[float] = field(default_factory=list)
    nll: list[float] = field(default_factory=list)
    nll_reference: list[float] = field(default_factory=list)
    # text, first and last + 1 index into kl, one a window
    spans: list[tuple[str, int, int]] = field(default_factory=list)
    # tokens that two greedy continuations share
    divergence: list[int] = field(default_factory=list)
    continued: int = 0  # tokens a continuation may have
    # conversations that both templates render to the same tokens
    prompts_equal: list[bool] = field(default_factory=list)
    # tokens of each conversation; None where the template refuses it
    prompt_lengths: list[int | None] = field(default_factory=list)
    windows: int = 0  # that the reference was read in
    past: dict[int, float] = field(default_factory=dict)  # mean KL of the tokens past each border
    borders: list[int] = field(default_factory=list)  # that were to be compared

    @property
    def complete(self) -> bool:
        """Whether every window and border was compared, and every conversation that the template
        takes was rendered.
        """
        rendered = [length for length in self.prompt_lengths if length is not None]
        return (
            len(self.spans) == self.windows
            and len(self.prompts_equal) == len(rendered)
            and len(self.past) == len(self.borders)
        )


def texts(folder: str | None) -> list[Path]:
    """Text files to score, in the order of their names.

    Raises:
        ConfigError: the folder has none.
    """
    root = Path(folder).expanduser() if folder else TEXTS
    found = sorted(root.glob("*.txt"))
    if not found:
        raise ConfigError(
            "evaluate.fidelity.texts", str(root), "a folder with at least one *.txt file"
        )
    return found


def windows(
    files: Sequence[Path],
    tokenize: Callable[[str], list[int]],
    bos: list[int],
    window: int,
    tokens: int,
) -> Iterator[tuple[str, list[int]]]:
    """Windows of token ids, taken in turn from each text so that a short measurement sees every
    language.

    Args:
        files: texts; each is read piece by piece.
        tokenize: token ids of a piece.
        bos: put in front of each window, where the tokenizer does so.
        window: tokens of one window.
        tokens: about how many in all; the last window may be cut, never below 16 tokens.
    """

    def of(file: Path) -> Iterator[list[int]]:
        left: list[int] = []
        with file.open(encoding="utf-8") as text:
            while piece := text.read(PIECE):
                left += tokenize(piece)
                while len(left) >= window - len(bos):
                    yield bos + left[: window - len(bos)]
                    left = left[window - len(bos) :]
        if len(left) >= 16:
            yield bos + left

    queues = {file.stem: of(file) for file in files}
    done = 0
    while queues and done < tokens:
        for name in list(queues):
            ids = next(queues[name], None)
            if ids is None:
                del queues[name]
                continue
            ids = ids[: max(16, tokens - done)]
            yield name, ids
            done += len(ids)
            if done >= tokens:
                return


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
    opened = reference.ask(
        "open_meter", requests=LOAD_REQUESTS, kind="checkpoint", folder=str(reference_folder)
    )
    bos, borders = opened["bos"], opened["borders"]
    found = {name: Comparison() for name in conversions}
    for name, (process, folder) in conversions.items():
        guard(name, partial(_open, found[name], process, folder, borders))
    file = workdir / "window.npy"

    def tokenize(piece: str) -> list[int]:
        return list(reference.ask("tokenize", text=piece))

    for text, ids in windows(texts(config.texts), tokenize, bos, config.window, config.tokens):
        reference.ask("write_logits", ids=ids, file=str(file))
        for name, (process, _) in conversions.items():
            found[name].windows += 1
            guard(name, partial(_add, found[name], process, text, ids, file))
        advance(len(ids))
    for border in borders:
        if not any(border in comparison.borders for comparison in found.values()):
            continue  # no conversion goes as far
        # what is compared has to begin past it
        ids = long_text(texts(config.texts), tokenize, bos, border + 2 * PAST_BORDER)
        reference.ask(
            "write_logits", requests=LOAD_REQUESTS, ids=ids, file=str(file), last=PAST_BORDER
        )
        for name, (process, _) in conversions.items():
            if border in found[name].borders:
                guard(name, partial(_past, found[name], process, border, ids, file))
    file.unlink(missing_ok=True)
    continued = 0
    for messages in CONVERSATIONS:
        prompt = reference.ask("render", messages=messages)
        for name, (process, _) in conversions.items():
            found[name].prompt_lengths.append(None if prompt is None else len(prompt))
            if prompt is not None:
                guard(name, partial(_render, found[name], process, messages, prompt))
        if prompt is not None and continued < config.continuations:
            continued += 1
            wanted = reference.ask(
                "continue_greedily", ids=prompt, tokens=config.continuation_tokens
            )
            for name, (process, _) in conversions.items():
                guard(
                    name,
                    partial(
                        _continue, found[name], process, prompt, wanted, config.continuation_tokens
                    ),
                )
    return found


def long_text(
    files: Sequence[Path], tokenize: Callable[[str], list[int]], bos: list[int], tokens: int
) -> list[int]:
    """Token ids of one text of this length: the files one after another, as often as it takes."""
    ids = list(bos)
    while True:
        for file in files:
            with file.open(encoding="utf-8") as text:
                while piece := text.read(PIECE):
                    ids += tokenize(piece)
                    if len(ids) >= tokens:
                        return ids[:tokens]


def _open(
    comparison: Comparison, process: CandidateProcess, folder: Path, borders: Sequence[int]
) -> None:
    opened = process.ask("open_meter", requests=LOAD_REQUESTS, kind="onnx", folder=str(folder))
    comparison.borders = [
        border for border in borders if border + 2 * PAST_BORDER < opened["context"]
    ]


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
    shared = sum(
        1
        for _ in itertools.takewhile(
            lambda pair: pair[0] == pair[1], zip(wanted, got, strict=False)
        )
    )
    # both may end early, with the same last token
    comparison.divergence.append(tokens if got == wanted else shared)
    comparison.continued = tokens


def metrics(comparison: Comparison) -> dict[str, float]:
    """Flat metrics: KL in nats, agreement as a share, perplexities, first divergence in tokens;
    none where a window is missing.
    """
    import numpy as np

    if not comparison.kl or not comparison.complete:
        return {}
    reference = float(np.exp(np.mean(comparison.nll_reference)))
    perplexity = float(np.exp(np.mean(comparison.nll)))
    found = {
        "fidelity/kl_mean": float(np.mean(comparison.kl)),
        "fidelity/kl_median": statistics.percentile(comparison.kl, 50),
        "fidelity/kl_p99": statistics.percentile(comparison.kl, 99),
        "fidelity/kl_max": max(comparison.kl),
        "fidelity/top1_agreement": float(np.mean(comparison.agree)),
        "fidelity/perplexity": perplexity,
        "fidelity/perplexity_reference": reference,
        "fidelity/perplexity_difference": perplexity - reference,
        "fidelity/tokens": float(len(comparison.kl)),
    }
    if comparison.past:
        found["fidelity/past_borders_kl"] = max(comparison.past.values())
    if comparison.prompts_equal:
        found["fidelity/prompt_agreement"] = float(np.mean(comparison.prompts_equal))
    if comparison.divergence:
        found["fidelity/first_divergence_median"] = statistics.percentile(comparison.divergence, 50)
        found["fidelity/identical_continuations"] = float(
            np.mean([each >= comparison.continued for each in comparison.divergence])
        )
    return found


def series(comparison: Comparison) -> dict[str, Any]:
    """Curves for the report: quantiles of KL, and figures by text."""
    import numpy as np

    if not comparison.kl:
        return {}
    kl, agree = np.asarray(comparison.kl), np.asarray(comparison.agree)
    by_text: dict[str, dict[str, float]] = {}
    for name in dict.fromkeys(text for text, _, _ in comparison.spans):
        picked = np.concatenate(
            [np.arange(start, stop) for text, start, stop in comparison.spans if text == name]
        )
        by_text[name] = {
            "kl_mean": float(kl[picked].mean()),
            "top1_agreement": float(agree[picked].mean()),
            "tokens": float(len(picked)),
        }
    return {
        "quantiles": [float(value) for value in np.quantile(kl, np.linspace(0, 1, 101))],
        "by_text": by_text,
        "divergence": comparison.divergence,
        "past_borders": {str(border): kl for border, kl in comparison.past.items()},
    }


def folder_of(artifacts: Path, variant: str) -> Path | None:
    """Folder of weights inside a logged model: an onnxruntime-genai folder, or a checkpoint with
    safetensors; None where there is none.
    """
    wanted = "genai_config.json" if variant == "onnx" else "config.json"
    for file in sorted(artifacts.rglob(wanted)):
        if variant == "onnx" or any(file.parent.glob("*.safetensors")):
            return file.parent
    return None
