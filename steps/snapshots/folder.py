"""A checkpoint folder on this machine, taken into the store by copy: it may change afterwards, the
snapshot does not.
"""

import logging
import os
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

from steps.config import model_names
from steps.config.model import ModelConfig
from steps.core.digest import sha256_of
from steps.core.errors import ConfigError
from steps.snapshots import selection, supported
from steps.snapshots.card import card_licence
from steps.snapshots.manifest import FileEntry, Snapshot, listing_digest
from steps.snapshots.safetensors_header import numbers
from steps.snapshots.store import Store

log = logging.getLogger(__name__)
MOST_FILES = 20_000  # below model.path


def fetch(model: ModelConfig, store: Store, key: str) -> Snapshot:  # noqa: ARG001 (the sources share one signature)
    """Snapshot of ``model.path``; its revision is the digest of its files.

    Raises:
        ConfigError: there is no such folder.
        SnapshotError: it holds no checkpoint that can be used.
    """
    folder, names, chosen = _chosen(model)
    small = {
        name: folder / source
        for name, source in chosen.items()
        if not name.endswith(selection.SUFFIX)
    }
    with supported.laid_out(small, store) as draft:
        supported.require(draft, names, _place(model), prebuilt=model.onnx is not None)
    # refuses a file that is cut short before it is copied
    numbers(
        {
            source: folder / source
            for name, source in chosen.items()
            if name.endswith(selection.SUFFIX)
        }
    )
    files = _bring(folder, chosen, store)
    revision = f"sha256-{listing_digest(files)[:16]}"
    name = public_name(folder, model.registered_name)
    log.info(
        "%s: %d files taken from the folder, %d left", name, len(chosen), len(names) - len(chosen)
    )
    return Snapshot(
        "folder", name, None, revision, model.licence or card_licence(folder / "README.md"), files
    )


def changed(model: ModelConfig, snapshot: Snapshot) -> str | None:
    """What of ``model.path`` is not as the snapshot has it, by the bytes; None where all is.

    Raises:
        ConfigError: there is no such folder.
        SnapshotError: it holds no checkpoint any more.
    """
    folder, _, chosen = _chosen(model)
    stamps = [(folder / source).stat() for source in chosen.values()]
    now = _digests(
        str(folder),
        tuple(sorted(chosen.items())),
        tuple((stamp.st_size, stamp.st_mtime_ns) for stamp in stamps),
    )
    had = {entry.path: entry.sha256 for entry in snapshot.files}
    different = sorted(name for name in {*now, *had} if now.get(name) != had.get(name))
    return (
        f"{selection.some(different)} changed in model.path={model.path!r}" if different else None
    )


def public_name(folder: Path, registered_name: str) -> str:
    """What a folder's checkpoint is called: its own name, or a better one where that is a
    digest.
    """
    return model_names.called(folder) or registered_name


def _place(model: ModelConfig) -> selection.Place:
    return selection.Place("model.path", str(model.path), model.allow_patterns)


def _chosen(model: ModelConfig) -> tuple[Path, list[str], dict[str, str]]:
    """The folder, the names of all its files, and of those that are taken: name in the snapshot to
    name in the folder.
    """
    folder = _folder(model.path)
    names = _names(folder)
    small = {name: name for name in selection.small_files(names, model.allow_patterns)}
    return folder, names, small | selection.weight_files(folder, names, _place(model))


def _folder(path: str | None) -> Path:
    try:
        folder = Path(str(path)).expanduser()
        if folder.is_file():
            expected = "a folder, not a file"
            cure = "pass the folder that has config.json and *.safetensors files"
            if folder.suffix == ".gguf":
                cure = "a GGUF file is not taken: pass the repository that it was made from"
            raise ConfigError("model.path", path, expected, cure)
        if not folder.is_dir():
            cure = "pass the absolute path of a checkpoint folder"
            raise ConfigError("model.path", path, "a folder that exists", cure)
    except (OSError, RuntimeError) as error:  # the latter of ~somebody
        expected = f"a folder that can be read ({getattr(error, 'strerror', None) or error})"
        raise ConfigError("model.path", path, expected) from error
    return folder


def _names(folder: Path) -> list[str]:
    """Names of all files below a folder that can be read.

    Raises:
        ConfigError: there are too many for a checkpoint's folder.
    """
    names: list[str] = []
    for above, _, files in os.walk(folder):
        names += [f"{above}/{name}"[len(str(folder)) :].lstrip("/") for name in files]
        if len(names) > MOST_FILES:
            expected = f"a checkpoint's folder, and it holds over {MOST_FILES:,} files"
            raise ConfigError("model.path", str(folder), expected, "name the checkpoint's own")
    return sorted(name for name in names if (folder / name).is_file())


def require(model: ModelConfig) -> None:
    """Refuse a folder from which no checkpoint can be taken, by its files' names.

    Raises:
        ConfigError: the folder does not exist.
        SnapshotError: it holds no checkpoint that can be used.
    """
    _chosen(model)


def _bring(folder: Path, chosen: Mapping[str, str], store: Store) -> tuple[FileEntry, ...]:
    """The files as the store has them; only what it lacks is copied and needs space."""
    sums = {name: sha256_of(folder / source) for name, source in chosen.items()}
    missing = [name for name in chosen if not store.has(sums[name])]
    store.need_space(
        sum((folder / chosen[name]).stat().st_size for name in missing), f"a copy of {folder.name}"
    )
    entries = {name: store.add(folder / chosen[name], name) for name in missing}
    return tuple(
        entries.get(name) or FileEntry(name, store.blob(sums[name]).stat().st_size, sums[name])
        for name in sorted(chosen)
    )


@lru_cache
def _digests(
    folder: str,
    chosen: tuple[tuple[str, str], ...],
    stamps: tuple[tuple[int, int], ...],  # noqa: ARG001
) -> Mapping[str, str]:
    """SHA-256 by name in the snapshot. One process asks for several outputs that go back to the
    same folder: it is read once, unless a size or a time (`stamps`) is another.
    """
    return {name: sha256_of(Path(folder) / source) for name, source in chosen}
