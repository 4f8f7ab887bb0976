"""An ONNX Runtime GenAI folder from a checkpoint, by onnxruntime-genai's own model builder; each
kind of build is made once.
"""

import json
import logging
import shutil
import signal
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import psutil

from steps.config.onnx import ExecutionProvider, OnnxConfig, Precision
from steps.core.files import place_files
from steps.snapshots import child
from steps.snapshots.errors import SnapshotError
from steps.snapshots.manifest import FileEntry, listing_digest
from steps.snapshots.safetensors_header import parameter_count
from steps.snapshots.store import Store
from steps.snapshots.store_folder import request_key

log = logging.getLogger(__name__)

# what decides the bytes of a build
PACKAGES = ("onnxruntime-genai", "onnxruntime", "onnx", "onnx-ir", "transformers", "torch")
PREPARATION = 3  # raised whenever what `onnx_folder` and `model_builder` do to a folder changes
WEIGHTS = (".onnx", ".data")  # files that preparing a folder does not touch
# Peak memory of the builder, measured: 1.3 to 2.2 GB for 135 million parameters (2.9 with k_quant),
# 22.4 GB for 3.8 billion in int4.
BASE_MEMORY, MEMORY_PER_PARAMETER, K_QUANT = 1.4e9, 5.7, 1.4  # bytes, bytes, factor
# Bytes that are written, embeddings included: they stay in float32 on the CPU.
DISK_PER_PARAMETER = {
    Precision.fp32: 4.2,
    Precision.fp16: 2.2,
    Precision.int8: 2.5,
    Precision.int4: 2.0,
}
REPORT = "take a prebuilt folder (model.onnx) or another model; docs/models.md lists what was tried"
# what the builder says of an architecture that it lacks
UNSUPPORTED = "model is not currently supported"


def build(checkpoint: Path, onnx: OnnxConfig, store: Store, snapshot_digest: str) -> Path:
    """The verified ONNX folder of a checkpoint, from the store or built now.

    The builder now and then writes the same graph in other bytes, so a build is kept and not made
    again.

    Args:
        checkpoint: folder of safetensors weights, config and tokenizer.
        onnx: precision, execution provider and builder options.
        store: where builds are kept.
        snapshot_digest: digest of the checkpoint's snapshot; with the options and package versions
            it names the build.

    Raises:
        SnapshotError: the disk is too small, the builder fails, or what it built does not load.
    """
    return _once(
        request(onnx, snapshot_digest),
        store,
        lambda target: _build(checkpoint, onnx, store, target),
    )


def prepared(prebuilt: Path, checkpoint: Path, store: Store, snapshot_digest: str) -> Path:
    """A folder that somebody else built, with the checkpoint's tokenizer, template, end tokens and
    true limits.

    Args:
        prebuilt: its files as they were published; they stay as they are.
        checkpoint: folder of the checkpoint that it was built from.
        store: where the result is kept; weights are linked, not copied.
        snapshot_digest: digest of the snapshot that holds both.

    Raises:
        SnapshotError: the checkpoint does not say what is needed.
    """

    def prepare(target: Path) -> None:
        for source in sorted(path for path in prebuilt.rglob("*") if path.is_file()):
            place = target / source.relative_to(prebuilt)
            place.parent.mkdir(parents=True, exist_ok=True)
            if source.suffix in WEIGHTS:
                place_files(source.parent, [source.name], place.parent, "preparing the ONNX folder")
            else:
                shutil.copyfile(source, place)
        try:
            child.run("steps.snapshots.onnx_folder", target, checkpoint, cwd=child.ROOT)
        except child.ChildError as error:
            raise SnapshotError(
                "model.onnx",
                "prebuilt folder",
                f"cannot be served: {child.last_line(error.tail)}",
                REPORT,
            ) from error

    return _once(
        {
            "prebuilt": snapshot_digest,
            "preparation": PREPARATION,
            "transformers": version("transformers"),
        },
        store,
        prepare,
    )


def _once(asked: dict[str, object], store: Store, make: Callable[[Path], None]) -> Path:
    """The folder that answers a request: the store's, or made now by ``make``, which is given a
    folder that is not there yet, and kept.
    """
    key = "onnx-" + request_key(asked)
    with store.lock(key):
        files = _known(key, store)
        if files is None:
            with store.scratch() as scratch:
                target = scratch / "onnx"
                make(target)
                files = store.add_folder(target)
            store.keep(
                key,
                json.dumps(
                    {"digest": listing_digest(files), "files": [vars(entry) for entry in files]},
                    indent=1,
                ),
            )
        return store.folder(files)


def request(onnx: OnnxConfig, snapshot_digest: str) -> dict[str, object]:
    """What decides the bytes of a build."""
    return {
        "snapshot": snapshot_digest,
        "precision": onnx.precision.value,
        "execution_provider": onnx.execution_provider.value,
        "extra_options": dict(onnx.extra_options),
        "preparation": PREPARATION,
        "packages": {name: version(name) for name in PACKAGES},
    }


def builder_arguments(checkpoint: Path, target: Path, cache: Path, onnx: OnnxConfig) -> list[str]:
    """Command line of ``python -m onnxruntime_genai.models.builder``."""
    arguments = ["-i", str(checkpoint), "-o", str(target), "-c", str(cache)]
    arguments += ["-p", onnx.precision.value, "-e", onnx.execution_provider.value]
    if onnx.extra_options:
        arguments += [
            "--extra_options",
            *(f"{name}={value}" for name, value in sorted(onnx.extra_options.items())),
        ]
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
        log.warning(
            "the ONNX build in the store is damaged (%s): building it again",
            ", ".join(entry.path for entry in damaged),
        )
        return None
    log.info("ONNX build in the store, %.1f MB verified", sum(entry.size for entry in files) / 1e6)
    return files


def _build(checkpoint: Path, onnx: OnnxConfig, store: Store, target: Path) -> None:
    parameters = parameter_count(checkpoint)
    store.need_space(int(parameters * DISK_PER_PARAMETER[onnx.precision]), "the ONNX build")
    memory = _say_memory(parameters, onnx)
    kind = f"{onnx.precision.value} {onnx.execution_provider.value}"
    try:
        child.run(
            "steps.snapshots.model_builder",
            *builder_arguments(checkpoint, target, target.with_name("cache"), onnx),
        )
    except child.ChildError as error:
        raise _explained(error, checkpoint, onnx, memory) from error
    if onnx.execution_provider is not ExecutionProvider.cpu:
        log.warning(
            "built for %s: whether it loads shows only on such a machine",
            onnx.execution_provider.value,
        )
        return
    try:
        child.run("steps.snapshots.onnx_smoke", target)
    except child.ChildError as error:
        log.debug("the output of loading it ended: %s", error.tail)
        field, value, cure = _about_options(checkpoint, onnx)
        raise SnapshotError(
            field, value, f"the {kind} build does not load: {child.last_line(error.tail)}", cure
        ) from error


def _explained(
    error: child.ChildError, checkpoint: Path, onnx: OnnxConfig, memory: str
) -> SnapshotError:
    """What a failed builder means to the user, in one line; all that it said is in the log at level
    DEBUG.
    """
    log.debug("the model builder's output ended: %s", error.tail)
    kind = f"{onnx.precision.value} {onnx.execution_provider.value}"
    builder = f"the model builder of onnxruntime-genai {version('onnxruntime-genai')}"
    if error.returncode == -signal.SIGKILL:
        problem = f"the builder was killed, most likely for memory ({memory})"
        return SnapshotError(
            "onnx.precision",
            kind,
            problem,
            "build where more is free, or take a prebuilt folder (model.onnx)",
        )
    if UNSUPPORTED in error.tail:
        cure = "take a model of another one, or a prebuilt folder (model.onnx)"
        return SnapshotError(
            "model", architecture(checkpoint), f"{builder} does not know this architecture", cure
        )
    field, value, cure = _about_options(checkpoint, onnx)
    return SnapshotError(field, value, f"{builder} failed: {child.last_line(error.tail)}", cure)


def _about_options(checkpoint: Path, onnx: OnnxConfig) -> tuple[str, object, str]:
    """Field, value and cure of a failed build: its options where it has some, else the model's
    architecture.
    """
    if onnx.extra_options:
        return (
            "onnx.extra_options",
            dict(onnx.extra_options),
            f"leave them out (onnx=fp32_cpu builds without any), or {REPORT}",
        )
    return "model", architecture(checkpoint), REPORT


def architecture(checkpoint: Path) -> str:
    """What ``config.json`` calls the model's class, or its type where it names none."""
    config = json.loads((checkpoint / "config.json").read_text(encoding="utf-8"))
    return str((config.get("architectures") or [config.get("model_type")])[0])


def _say_memory(parameters: int, onnx: OnnxConfig) -> str:
    factor = K_QUANT if onnx.extra_options.get("algo_config", "").startswith("k_quant") else 1
    needed, free = (
        factor * (BASE_MEMORY + MEMORY_PER_PARAMETER * parameters),
        psutil.virtual_memory().available,
    )
    text = (
        f"{parameters / 1e6:.0f} million parameters need about {needed / 1e9:.1f} GB of memory,"
        f" {free / 1e9:.1f} GB are free"
    )
    # an estimate forbids nothing: it warns, and explains a kill afterwards
    log.log(logging.WARNING if free < needed else logging.INFO, "building: %s", text)
    return text
