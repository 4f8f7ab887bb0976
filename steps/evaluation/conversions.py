"""Each conversion beside the checkpoint of its own snapshot: one reference and one conversion are
in memory at a time.
"""

import logging
from collections.abc import Callable, Sequence
from pathlib import Path

from steps.config.root import Config
from steps.evaluation import fidelity, metrics, verdict
from steps.evaluation.candidate import Candidate
from steps.evaluation.fidelity_comparison import Comparison, metrics_of, series_of
from steps.evaluation.progress import Display
from steps.evaluation.worker_process import (
    CandidateFailedError,
    CandidateProcess,
    Limits,
    ModelError,
)

log = logging.getLogger(__name__)
TOKEN_WEIGHT = 0.008  # rough seconds of one token in the reference and in one conversion


def count(candidates: Sequence[Candidate]) -> int:
    """How many of the candidates are conversions."""
    return sum(candidate.description.variant == verdict.CONVERTED for candidate in candidates)


def compare_all(
    candidates: Sequence[Candidate], config: Config, workdir: Path, display: Display
) -> None:
    """Compare each conversion with the checkpoint of the same snapshot, which a transformers
    variant carries.

    A meter that fails leaves a note and no figures: the served candidate was judged in another
    process, and stays as it is.
    """
    alive = [candidate for candidate in candidates if candidate.failure is None]
    references: dict[str, Candidate] = {}
    groups: dict[str, list[Candidate]] = {}
    for candidate in alive:
        digest = candidate.description.snapshot_digest
        if candidate.description.variant == "transformers" and digest is not None:
            references.setdefault(digest, candidate)
    for candidate in alive:
        if candidate.description.variant != verdict.CONVERTED:
            continue
        digest = candidate.description.snapshot_digest
        if digest is None:
            candidate.notes.append(
                "fidelity: the logged model does not say which snapshot it was made from, so there"
                " is no reference"
            )
        elif digest not in references:
            candidate.notes.append(
                "fidelity: no transformers variant of the same snapshot is among the candidates, so"
                " there is no reference"
            )
        else:
            groups.setdefault(digest, []).append(candidate)
    for digest, group in groups.items():
        compare_group(references[digest], group, config, workdir, display)


def compare_group(
    reference: Candidate,
    group: Sequence[Candidate],
    config: Config,
    workdir: Path,
    display: Display,
) -> None:
    settings = config.evaluate
    limits = Limits(settings.candidate_timeout, settings.request_timeout)
    folder = weights(reference)
    if folder is None:
        for candidate in group:
            candidate.notes.append(
                "fidelity: the transformers variant of the same snapshot holds no checkpoint with"
                " safetensors"
            )
        return
    reference.notes.append(
        "fidelity: this variant holds the checkpoint itself and is the reference"
    )
    shared = workdir / "logits"  # the one folder that both may write to
    shared.mkdir(exist_ok=True)
    with CandidateProcess(
        f"{reference.process.name}-reference", limits, [folder], [shared]
    ) as process:
        for candidate in group:
            build = weights(candidate)
            if build is None:
                candidate.notes.append(
                    "fidelity: the logged model holds no folder with a genai_config.json"
                )
                continue
            name = candidate.process.name
            with CandidateProcess(f"{name}-logits", limits, [build], [shared]) as meter:
                try:
                    comparison = fidelity.measure(
                        process,
                        folder,
                        {name: (meter, build)},
                        settings.fidelity,
                        shared,
                        guard_of(candidate),
                        lambda tokens: display.advance(TOKEN_WEIGHT * tokens),
                    )[name]
                except (CandidateFailedError, ModelError) as error:
                    note(candidate, f"the reference failed: {error}")
                    continue
            record(candidate, comparison)
            if metrics.PERPLEXITY_REFERENCE in candidate.metrics:
                reference.metrics[metrics.PERPLEXITY] = candidate.metrics[
                    metrics.PERPLEXITY_REFERENCE
                ]


def record(candidate: Candidate, comparison: Comparison) -> None:
    """Put what was measured on the candidate; nothing where a window is missing."""
    if not comparison.complete:
        done, all_ = (
            len(comparison.spans) + len(comparison.past),
            comparison.windows + len(comparison.borders),
        )
        note(candidate, f"{done} of {all_} windows were compared, so no figure is given")
        return
    candidate.metrics |= metrics_of(comparison)
    candidate.series["fidelity"] = series_of(comparison)
    if candidate.served_prompts is not None:
        pairs = zip(candidate.served_prompts, comparison.prompt_lengths, strict=True)
        # a conversation that either refuses says nothing of its tokens; the contract's table names
        # a system role that is missing
        same = [ours == theirs for ours, theirs in pairs if ours is not None and theirs is not None]
        if same:
            candidate.metrics[metrics.SERVED_PROMPT_AGREEMENT] = sum(same) / len(same)


def guard_of(candidate: Candidate) -> Callable[[str, Callable[[], None]], None]:
    """Runs a part of the meter; after the first failure the rest is left out, as a mean over what
    is left would look like a whole one.
    """
    failed = False

    def guard(_: str, part: Callable[[], None]) -> None:
        nonlocal failed
        if failed:
            return
        try:
            part()
        except (CandidateFailedError, ModelError) as error:
            failed = True
            note(candidate, f"the meter failed: {error}")

    return guard


def note(candidate: Candidate, text: str) -> None:
    candidate.notes.append(f"fidelity: {text}")
    log.warning("%s: fidelity: %s", candidate.description.name, text)


def weights(candidate: Candidate) -> Path | None:
    """Folder of weights in the logged model, which was fetched when it was loaded."""
    if candidate.folder is None:
        return None
    return folder_of(candidate.folder, candidate.description.variant)


def folder_of(artifacts: Path, variant: str) -> Path | None:
    """Folder of weights inside a logged model: an onnxruntime-genai folder, or a checkpoint with
    safetensors; None where there is none.
    """
    wanted = "genai_config.json" if variant == "onnx" else "config.json"
    for file in sorted(artifacts.rglob(wanted)):
        if variant == "onnx" or any(file.parent.glob("*.safetensors")):
            return file.parent
    return None
