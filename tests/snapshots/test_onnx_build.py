"""Builds by the real model builder. The fast ones stand in for it where only what happens around it
is asked about.
"""

import json
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
import yaml
from omegaconf import OmegaConf

from steps.config.onnx import ExecutionProvider, OnnxConfig, Precision
from steps.config.root import CONF
from steps.snapshots import child, onnx_build, parity
from steps.snapshots.errors import SnapshotError
from steps.snapshots.manifest import Snapshot
from steps.snapshots.store import Store
from tests.snapshots.killed import DIGEST, fake_builder

ROOT = Path(__file__).resolve().parents[2]
BUILDS = sorted(path.stem for path in (CONF / "onnx").glob("*.yaml"))
Runner = Callable[..., str]


def configured(name: str) -> OnnxConfig:
    """``conf/onnx/<name>.yaml``, typed and validated as Hydra would."""
    chosen = yaml.safe_load((CONF / "onnx" / f"{name}.yaml").read_text())
    del chosen["defaults"]
    onnx = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(OnnxConfig), chosen))
    assert isinstance(onnx, OnnxConfig)
    return onnx


@pytest.fixture
def builder(monkeypatch: pytest.MonkeyPatch) -> Callable[[Runner], list[str]]:
    """Put a double in the place of child processes; returns the list of modules that it was asked
    to run.
    """

    def install(double: Runner) -> list[str]:
        asked: list[str] = []

        def run(module: str, *arguments: str, **others: object) -> str:
            asked.append(module)
            return double(module, *arguments, **others)

        monkeypatch.setattr(child, "run", run)
        return asked

    return install


def failing(at: str, returncode: int, output: str) -> Runner:
    """A builder whose module `at` ends badly."""

    def run(module: str, *arguments: str, **others: object) -> str:
        if module == at:
            raise child.ChildError(["python", "-m", module], returncode, output)
        return fake_builder(module, *arguments, **others)

    return run


def test_a_build_is_made_once(
    checkpoint: Path, store: Store, builder: Callable[[Runner], list[str]]
) -> None:
    asked = builder(fake_builder)
    first = onnx_build.build(checkpoint, OnnxConfig(), store, DIGEST)
    assert sorted(path.name for path in first.iterdir()) == ["genai_config.json", "model.onnx"]
    assert asked == ["steps.snapshots.model_builder", "steps.snapshots.onnx_smoke"]
    assert onnx_build.build(checkpoint, OnnxConfig(), store, DIGEST) == first
    assert len(asked) == 2
    assert onnx_build.build(
        checkpoint, OnnxConfig(extra_options={"block_size": "64"}), store, DIGEST
    )
    assert onnx_build.build(checkpoint, OnnxConfig(), store, DIGEST.replace("0", "1"))
    assert len(asked) == 6


def test_a_damaged_build_is_built_again(
    checkpoint: Path, store: Store, builder: Callable[[Runner], list[str]]
) -> None:
    asked = builder(fake_builder)
    folder = onnx_build.build(checkpoint, OnnxConfig(), store, DIGEST)
    graph = folder / "model.onnx"
    graph.chmod(0o644)
    graph.write_bytes(b"other" + graph.read_bytes()[5:])
    assert (
        onnx_build.build(checkpoint, OnnxConfig(), store, DIGEST) / "model.onnx"
    ).read_bytes() == b"onnx" * 1000
    assert len(asked) == 4


@pytest.mark.parametrize(
    "damage",
    [lambda text: text[:-9], lambda text: text.replace("model.onnx", "nodel.onnx"), lambda _: "[]"],
)
def test_a_damaged_record_is_not_believed(
    damage: Callable[[str], str],
    checkpoint: Path,
    store: Store,
    builder: Callable[[Runner], list[str]],
) -> None:
    asked = builder(fake_builder)
    folder = onnx_build.build(checkpoint, OnnxConfig(), store, DIGEST)
    record = next((store.root / "records").iterdir())
    record.write_text(damage(record.read_text()))
    assert onnx_build.build(checkpoint, OnnxConfig(), store, DIGEST) == folder
    assert len(asked) == 4


@pytest.mark.parametrize(
    ("double", "message"),
    [
        (
            failing("steps.snapshots.model_builder", 1, "ValueError: no such thing"),
            (
                r"model='LlamaForCausalLM': the model builder of onnxruntime-genai .* failed:"
                r" ValueError: no such thing; take a prebuilt"
            ),
        ),
        (
            failing("steps.snapshots.model_builder", -signal.SIGKILL, ""),
            (
                r"onnx\.precision='int4 cpu': the builder was killed, most likely for memory \(0"
                r" million parameters need about 1\.4 GB"
            ),
        ),
        (
            failing(
                "steps.snapshots.model_builder",
                1,
                "NotImplementedError: The models/x model is not currently supported.",
            ),
            (
                r"model='LlamaForCausalLM': the model builder of onnxruntime-genai .* does not know"
                r" this architecture; take a model of another"
            ),
        ),
        (
            failing("steps.snapshots.onnx_smoke", 1, "no kernel"),
            r"the int4 cpu build does not load: no kernel",
        ),
    ],
)
def test_a_failed_build_says_why_and_leaves_nothing(
    double: Runner,
    message: str,
    checkpoint: Path,
    store: Store,
    builder: Callable[[Runner], list[str]],
) -> None:
    builder(double)
    with pytest.raises(SnapshotError, match=message):
        onnx_build.build(checkpoint, OnnxConfig(), store, DIGEST)
    assert not any(
        path.is_file()
        for folder in ("blobs", "records", "scratch")
        for path in (store.root / folder).rglob("*")
    )


def test_a_build_for_another_machine_is_not_loaded_here(
    checkpoint: Path,
    store: Store,
    builder: Callable[[Runner], list[str]],
    caplog: pytest.LogCaptureFixture,
) -> None:
    asked = builder(fake_builder)
    onnx_build.build(checkpoint, OnnxConfig(Precision.fp16, ExecutionProvider.cuda), store, DIGEST)
    assert asked == ["steps.snapshots.model_builder"]
    assert "built for cuda: whether it loads shows only on such a machine" in caplog.text


def test_memory_that_is_short_is_said_beforehand(
    checkpoint: Path,
    store: Store,
    builder: Callable[[Runner], list[str]],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    builder(fake_builder)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=1_000_000_000))
    with caplog.at_level(logging.WARNING):
        onnx_build.build(checkpoint, OnnxConfig(), store, DIGEST)
    assert "0 million parameters need about 1.4 GB of memory, 1.0 GB are free" in caplog.text


def test_a_disk_that_is_too_small_is_refused_beforehand(
    checkpoint: Path,
    store: Store,
    builder: Callable[[Runner], list[str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = builder(fake_builder)
    monkeypatch.setattr(onnx_build, "parameter_count", lambda _: 3_800_000_000_000)
    with pytest.raises(SnapshotError, match=r"the ONNX build needs 7600\.0 GB, .* GB are free"):
        onnx_build.build(checkpoint, OnnxConfig(), store, DIGEST)
    assert asked == []


def test_the_command_line() -> None:
    onnx = OnnxConfig(extra_options={"is_symmetric": "false", "block_size": "64"})
    arguments = onnx_build.builder_arguments(Path("/c"), Path("/o"), Path("/k"), onnx)
    assert (
        " ".join(arguments)
        == "-i /c -o /o -c /k -p int4 -e cpu --extra_options block_size=64 is_symmetric=false"
    )


@pytest.mark.parametrize("name", BUILDS)
def test_every_config_says_how_to_use_it(name: str) -> None:
    first = (CONF / "onnx" / f"{name}.yaml").read_text().splitlines()[0]
    assert first.startswith("# mlflow run . ") and f"onnx={name}" in first
    configured(name)


@pytest.mark.slow
@pytest.mark.parametrize("name", BUILDS)
def test_every_build_loads_and_is_at_parity(name: str, tiny: Snapshot, tiny_folder: Path) -> None:
    # a CPU build is loaded: see onnx_smoke
    folder = onnx_build.build(tiny_folder, configured(name), Store(), tiny.digest)
    parity.check(tiny_folder, folder)
    config = json.loads((folder / "genai_config.json").read_text())
    assert config["model"]["context_length"] == 2048


BUILD = """
import sys
from pathlib import Path
from steps.config.onnx import OnnxConfig
from steps.snapshots.onnx_build import build
from steps.snapshots.store import Store
print(build(Path(sys.argv[1]), OnnxConfig(), Store(sys.argv[2]), sys.argv[3]))
"""


@pytest.mark.slow
def test_a_killed_build_takes_its_builder_along(
    tiny: Snapshot, tiny_folder: Path, store: Store
) -> None:
    command = [sys.executable, "-c", BUILD, str(tiny_folder), str(store.root), tiny.digest]
    killed = subprocess.Popen(command, cwd=ROOT)
    deadline = time.monotonic() + 120
    scratch = store.root / "scratch"
    while not any(scratch.glob("*/onnx/*")):  # until the builder writes
        assert killed.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    builders = psutil.Process(killed.pid).children(recursive=True)
    assert builders
    os.kill(killed.pid, signal.SIGKILL)
    killed.wait()
    assert psutil.wait_procs(builders, timeout=10)[1] == []
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    parity.check(tiny_folder, Path(done.stdout.strip()))
    assert list(scratch.iterdir()) == []
