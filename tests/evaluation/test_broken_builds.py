"""The meter on real weights: float32 shows nothing, and builds that were broken on purpose are
caught.
"""

import shutil
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest

from steps.config.evaluate import FidelityConfig
from steps.config.gates import AbsoluteGates, GatesConfig
from steps.evaluation import fidelity, packs, verdict
from steps.evaluation.fidelity_comparison import metrics_of
from steps.evaluation.worker_process import CandidateProcess, Limits
from tests.evaluation import sample
from tests.evaluation.conftest import Weights, weights_of


def measured(
    checkpoint: Path, builds: dict[str, Path], workdir: Path, tokens: int
) -> dict[str, dict[str, float]]:
    """Fidelity of several builds, each in a process of its own as in an evaluation."""

    def call(_: str, part: Callable[[], None]) -> None:
        part()

    config = FidelityConfig(tokens=tokens, window=128, continuations=3, continuation_tokens=8)
    with ExitStack() as stack:
        started = {
            name: CandidateProcess(name, Limits(600, 300), [path], [workdir])
            for name, path in builds.items()
        }
        processes = {
            name: (stack.enter_context(process), builds[name]) for name, process in started.items()
        }
        reference = stack.enter_context(
            CandidateProcess("reference", Limits(600, 300), [checkpoint], [workdir])
        )
        comparisons = fidelity.measure(
            reference, checkpoint, processes, config, workdir, call, lambda _: None
        )
    assert not list(workdir.glob("*.npy"))
    return {name: metrics_of(comparison) for name, comparison in comparisons.items()}


def permuted(build: Path, folder: Path) -> Path:
    """The build with the columns of its largest projection shuffled: it loads, decodes, and is
    wrong.
    """
    import numpy as np
    import onnx
    from onnx import numpy_helper

    shutil.copytree(build, folder, symlinks=False)
    model = onnx.load(str(folder / "model.onnx"))
    matrices = [
        tensor
        for tensor in model.graph.initializer
        if len(tensor.dims) >= 2 and "down_proj" in tensor.name
    ]
    assert matrices, "the build names no down_proj"
    for tensor in matrices:
        values = numpy_helper.to_array(tensor)
        order = np.random.default_rng(0).permutation(values.shape[0])
        tensor.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(values[order]), tensor.name))
    (folder / "model.onnx").unlink()
    (folder / "model.onnx.data").unlink()
    onnx.save(
        model, str(folder / "model.onnx"), save_as_external_data=True, location="model.onnx.data"
    )
    return folder


def with_wrong_template(build: Path, folder: Path) -> Path:
    """The build with a chat template that forgets the newline after the role."""
    shutil.copytree(build, folder, symlinks=False)
    template = folder / "chat_template.jinja"
    changed = template.read_text().replace("<|im_start|>", "<|im_start|> ")
    assert changed != template.read_text()
    template.unlink()
    template.write_text(changed)
    return folder


def gates_of(metrics: dict[str, float], ceiling: float) -> dict[str, bool | None]:
    candidate = sample.candidate(packs.load("smoke"), variant="onnx", share=1.0, speed=90, seed=3)
    served = {"fidelity/served_prompt_agreement": 1.0}  # nothing is served here
    measured_too = {**candidate.metrics, **served, **metrics}
    from dataclasses import replace

    decided = verdict.decide(
        replace(candidate, metrics=measured_too),
        None,
        GatesConfig(AbsoluteGates(quality_floor=None, kl_ceiling=ceiling)),
        0,
    )
    return {gate.name: gate.passed for gate in decided.gates} | {
        "promoted": decided.decision == "promote"
    }


def test_tiny_float32_is_the_checkpoint_and_broken_builds_are_not(
    tiny_fp32: Weights, tmp_path: Path
) -> None:
    builds = {
        "whole": tiny_fp32.onnx,
        "permuted": permuted(tiny_fp32.onnx, tmp_path / "permuted"),
        "template": with_wrong_template(tiny_fp32.onnx, tmp_path / "template"),
    }
    metrics = measured(tiny_fp32.checkpoint, builds, tmp_path, 512)
    assert metrics["whole"]["fidelity/kl_mean"] < 1e-5
    assert metrics["whole"]["fidelity/top1_agreement"] > 0.99
    assert metrics["whole"]["fidelity/prompt_agreement"] == 1.0
    assert metrics["permuted"]["fidelity/kl_mean"] > 10 * max(
        1e-5, metrics["whole"]["fidelity/kl_mean"]
    )
    assert metrics["template"]["fidelity/prompt_agreement"] == 0.0
    assert gates_of(metrics["whole"], 1e-5)["promoted"]
    held = gates_of(metrics["permuted"], 1e-5)
    assert held["fidelity"] is False and held["chat template"] is True and not held["promoted"]
    held = gates_of(metrics["template"], 1e-5)
    assert held["chat template"] is False and held["fidelity"] is True and not held["promoted"]


@pytest.mark.slow
def test_embedded_model(tmp_path: Path) -> None:
    """The real weights: float32 proves the meter, and the default policy tells a whole build from a
    broken one.
    """
    whole = weights_of("smollm2_135m", "fp32_cpu")
    builds = {"whole": whole.onnx, "permuted": permuted(whole.onnx, tmp_path / "permuted")}
    metrics = measured(whole.checkpoint, builds, tmp_path, 1024)
    assert metrics["whole"]["fidelity/kl_mean"] < 1e-5
    ceiling = AbsoluteGates().kl_ceiling
    assert ceiling is not None
    assert gates_of(metrics["whole"], ceiling)["promoted"]
    assert gates_of(metrics["permuted"], ceiling)["fidelity"] is False
