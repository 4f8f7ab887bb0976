"""An ONNX Runtime GenAI folder from a checkpoint, by onnxruntime-genai's own model builder; each kind of build is made once."""

import json
import logging
import signal
from importlib.metadata import version
from pathlib import Path

from steps.config.onnx import ExecutionProvider, OnnxConfig, Precision
from steps.snapshots import child
from steps.snapshots.errors import SnapshotError
from steps.snapshots.manifest import FileEntry, listing_digest
from steps.snapshots.store import Store, request_key
from steps.snapshots.weights import parameter_count

log = logging.getLogger(__name__)

PACKAGES = ("onnxruntime-genai", "onnxruntime", "onnx", "onnx-ir", "transformers", "torch")  # what decides the bytes of a build
# Peak memory of the builder, measured: 1.3 to 2.2 GB for 135 million parameters (2.9 with k_quant), 22.4 GB for 3.8 billion in int4.
BASE_MEMORY, MEMORY_PER_PARAMETER, K_QUANT = 1.4e9, 5.7, 1.4  # bytes, bytes, factor
# What is written, embeddings included: they stay in float32 on the CPU.
DISK_PER_PARAMETER = {Precision.fp32: 4.2, Precision.fp16: 2.2, Precision.int8: 2.5, Precision.int4: 2.0}  # bytes


UNSUPPORTED = "model is not currently supported"  # what the builder says of an architecture that it lacks


def build(checkpoint: Path, onnx: OnnxConfig, store: Store, snapshot_digest: str) -> Path:
    """The verified ONNX folder of a checkpoint, from the store or built now.

    The builder now and then writes the same graph in other bytes, so a build is kept and not made again.

    Args:
        checkpoint: folder of safetensors weights, config and tokenizer.
        onnx: precision, execution provider and builder options.
        store: where builds are kept.
        snapshot_digest: digest of the checkpoint's snapshot; with the options and package versions it names the build.

    Raises:
        SnapshotError: the disk is too small, the builder fails, or what it built does not load.
    """
    key = "onnx-" + request_key(request(onnx, snapshot_digest))
    with store.lock(key):
        files = _known(key, store)
        if files is None:
            files = _build(checkpoint, onnx, store)
            store.keep(key, json.dumps({"digest": listing_digest(files), "files": [vars(entry) for entry in files]}, indent=1))
        return store.folder(files)


def request(onnx: OnnxConfig, snapshot_digest: str) -> dict[str, object]:
    """What decides the bytes of a build."""
    return {
        "snapshot": snapshot_digest,
        "precision": onnx.precision.value,
        "execution_provider": onnx.execution_provider.value,
        "extra_options": dict(onnx.extra_options),
        "packages": {name: version(name) for name in PACKAGES},
    }


def builder_arguments(checkpoint: Path, target: Path, cache: Path, onnx: OnnxConfig) -> list[str]:
    """Command line of ``python -m onnxruntime_genai.models.builder``."""
    arguments = ["-i", str(checkpoint), "-o", str(target), "-c", str(cache)]
    arguments += ["-p", onnx.precision.value, "-e", onnx.execution_provider.value]
    if onnx.extra_options:
        arguments += ["--extra_options", *(f"{name}={value}" for name, value in sorted(onnx.extra_options.items()))]
    return arguments


def _known(key: str, store: Store) -> tuple[FileEntry, ...] | None:
    text = store.record(key)
    if text is None:
        return None
    try:
        record = json.loads(text)
        files = tuple(FileEntry(**entry) for entry in record["files"])
        whole = record["digest"] == listing_digest(files)
    except (ValueError, TypeError, KeyError):
        whole = False
    if not whole:
        log.warning("the store's record of the ONNX build is damaged: building it again")
        return None
    if damaged := store.damaged(files):
        log.warning("the ONNX build in the store is damaged (%s): building it again", ", ".join(entry.path for entry in damaged))
        return None
    log.info("ONNX build in the store, %.1f MB verified", sum(entry.size for entry in files) / 1e6)
    return files


def _build(checkpoint: Path, onnx: OnnxConfig, store: Store) -> tuple[FileEntry, ...]:
    parameters = parameter_count(checkpoint)
    store.need_space(int(parameters * DISK_PER_PARAMETER[onnx.precision]), "the ONNX build")
    memory = _say_memory(parameters, onnx)
    kind = f"{onnx.precision.value} {onnx.execution_provider.value}"
    with store.scratch() as scratch:
        target = scratch / "onnx"
        try:
            child.run("onnxruntime_genai.models.builder", *builder_arguments(checkpoint, target, scratch / "cache", onnx), cwd=scratch)
        except child.ChildError as error:
            if error.returncode == -signal.SIGKILL:
                raise SnapshotError(
                    "onnx.precision",
                    kind,
                    f"the builder was killed, most likely for memory ({memory})",
                    "build where more is free, or take a prebuilt folder (model.onnx)",
                ) from error
            if UNSUPPORTED in error.tail:
                raise SnapshotError(
                    "model",
                    architecture(checkpoint),
                    "the model builder of onnxruntime-genai does not know this architecture",
                    "take a model of another one, or a prebuilt folder (model.onnx)",
                ) from error
            raise SnapshotError(
                "onnx.extra_options", dict(onnx.extra_options), f"the builder failed: {error.tail}", "choose another group onnx=…"
            ) from error
        if onnx.execution_provider is ExecutionProvider.cpu:
            try:
                child.run("steps.snapshots.onnx_smoke", target)
            except child.ChildError as error:
                raise SnapshotError(
                    "onnx.extra_options",
                    dict(onnx.extra_options),
                    f"the {kind} build does not load: {error.tail}",
                    "choose another group onnx=…",
                ) from error
        else:
            log.warning("built for %s: whether it loads shows only on such a machine", onnx.execution_provider.value)
        return store.add_folder(target)


def architecture(checkpoint: Path) -> str:
    """What ``config.json`` calls the model's class, or its type where it names none."""
    config = json.loads((checkpoint / "config.json").read_text(encoding="utf-8"))
    return str((config.get("architectures") or [config.get("model_type")])[0])


def _say_memory(parameters: int, onnx: OnnxConfig) -> str:
    import psutil

    factor = K_QUANT if onnx.extra_options.get("algo_config", "").startswith("k_quant") else 1
    needed, free = factor * (BASE_MEMORY + MEMORY_PER_PARAMETER * parameters), psutil.virtual_memory().available
    text = f"{parameters / 1e6:.0f} million parameters need about {needed / 1e9:.1f} GB of memory, {free / 1e9:.1f} GB are free"
    # an estimate forbids nothing: it warns, and explains a kill afterwards
    log.log(logging.WARNING if free < needed else logging.INFO, "building: %s", text)
    return text
