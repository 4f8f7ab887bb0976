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


def count(subjects: Sequence[Candidate]) -> int:
    """How many of the candidates are conversions."""
    return sum(subject.description.variant == verdict.CONVERTED for subject in subjects)


def compare_all(
    subjects: Sequence[Candidate], config: Config, workdir: Path, display: Display
) -> None:
    """Compare each conversion with the checkpoint of the same snapshot, which a transformers
    variant carries.

    A meter that fails leaves a note and no figures: the served candidate was judged in another
    process, and stays as it is.
    """
    alive = [subject for subject in subjects if subject.failure is None]
    references: dict[str, Candidate] = {}
    groups: dict[str, list[Candidate]] = {}
    for subject in alive:
        digest = subject.description.snapshot_digest
        if subject.description.variant == "transformers" and digest is not None:
            references.setdefault(digest, subject)
    for subject in alive:
        if subject.description.variant != verdict.CONVERTED:
            continue
        digest = subject.description.snapshot_digest
        if digest is None:
            subject.notes.append(
                "fidelity: the logged model does not say which snapshot it was made from, so there"
                " is no reference"
            )
        elif digest not in references:
            subject.notes.append(
                "fidelity: no transformers variant of the same snapshot is among the candidates, so"
                " there is no reference"
            )
        else:
            groups.setdefault(digest, []).append(subject)
    for digest, group in groups.items():
        _compare(references[digest], group, config, workdir, display)


def _compare(
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
        for subject in group:
            subject.notes.append(
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
        for subject in group:
            build = weights(subject)
            if build is None:
                subject.notes.append(
                    "fidelity: the logged model holds no folder with a genai_config.json"
                )
                continue
            name = subject.process.name
            with CandidateProcess(f"{name}-logits", limits, [build], [shared]) as meter:
                try:
                    found = fidelity.measure(
                        process,
                        folder,
                        {name: (meter, build)},
                        settings.fidelity,
                        shared,
                        guard_of(subject),
                        lambda tokens: display.advance(TOKEN_WEIGHT * tokens),
                    )[name]
                except (CandidateFailedError, ModelError) as error:
                    note(subject, f"the reference failed: {error}")
                    continue
            record(subject, found)
            if metrics.PERPLEXITY_REFERENCE in subject.metrics:
                reference.metrics[metrics.PERPLEXITY] = subject.metrics[
                    metrics.PERPLEXITY_REFERENCE
                ]


def record(subject: Candidate, comparison: Comparison) -> None:
    """Put what was measured on the subject; nothing where a window is missing."""
    if not comparison.complete:
        done, all_ = (
            len(comparison.spans) + len(comparison.past),
            comparison.windows + len(comparison.borders),
        )
        note(subject, f"{done} of {all_} windows were compared, so no figure is given")
        return
    subject.metrics |= metrics_of(comparison)
    subject.series["fidelity"] = series_of(comparison)
    if subject.served_prompts is not None:
        pairs = zip(subject.served_prompts, comparison.prompt_lengths, strict=True)
        # a conversation that either refuses says nothing of its tokens; the contract's table names
        # a system role that is missing
        same = [ours == theirs for ours, theirs in pairs if ours is not None and theirs is not None]
        if same:
            subject.metrics[metrics.SERVED_PROMPT_AGREEMENT] = sum(same) / len(same)


def guard_of(subject: Candidate) -> Callable[[str, Callable[[], None]], None]:
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
            note(subject, f"the meter failed: {error}")

    return guard


def note(subject: Candidate, text: str) -> None:
    subject.notes.append(f"fidelity: {text}")
    log.warning("%s: fidelity: %s", subject.description.name, text)


def weights(subject: Candidate) -> Path | None:
    """Folder of weights in the logged model, which was fetched when it was loaded."""
    if subject.folder is None:
        return None
    return folder_of(subject.folder, subject.description.variant)


def folder_of(artifacts: Path, variant: str) -> Path | None:
    """Folder of weights inside a logged model: an onnxruntime-genai folder, or a checkpoint with
    safetensors; None where there is none.
    """
    wanted = "genai_config.json" if variant == "onnx" else "config.json"
    for file in sorted(artifacts.rglob(wanted)):
        if variant == "onnx" or any(file.parent.glob("*.safetensors")):
            return file.parent
    return None
