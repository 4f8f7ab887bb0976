"""A checkpoint folder on this machine, taken into the store by copy: it may change afterwards, the snapshot does not."""

import fnmatch
import logging
from collections.abc import Sequence
from pathlib import Path

from steps.config.errors import ConfigError
from steps.config.model import PICKLES, ModelConfig
from steps.snapshots.card import card_licence
from steps.snapshots.errors import SnapshotError
from steps.snapshots.manifest import FileEntry, Snapshot, listing_digest
from steps.snapshots.store import Store, sha256_of
from steps.snapshots.weights import parameter_count

log = logging.getLogger(__name__)
WEIGHTS = ".safetensors"


def fetch(model: ModelConfig, store: Store, key: str) -> Snapshot:  # noqa: ARG001 (the sources share one signature)
    """Snapshot of ``model.path``; its revision is the digest of its files.

    Raises:
        ConfigError: there is no such folder.
        SnapshotError: it holds no checkpoint that can be used.
    """
    folder = Path(str(model.path)).expanduser()
    if not folder.is_dir():
        raise ConfigError("model.path", model.path, "a folder that exists", "pass the absolute path of a checkpoint folder")
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    chosen = [name for name in names if taken(name, model.allow_patterns)]
    require_checkpoint(chosen, "model.path", str(model.path), names)
    parameter_count(folder)  # refuses a file that is cut short before it is copied
    files = _bring(folder, chosen, store)
    revision = f"sha256-{listing_digest(files)[:16]}"
    log.info("%s: %d files taken from the folder, %d left", folder.name, len(chosen), len(names) - len(chosen))
    return Snapshot("folder", folder.name, None, revision, model.licence or card_licence(folder / "README.md"), files)


def _bring(folder: Path, names: Sequence[str], store: Store) -> tuple[FileEntry, ...]:
    """The files as the store has them; only what it lacks is copied and needs space."""
    sums = {name: sha256_of(folder / name) for name in names}
    missing = [name for name in names if not store.has(sums[name])]
    store.need_space(sum((folder / name).stat().st_size for name in missing), f"a copy of {folder.name}")
    entries = {name: store.add(folder / name, name) for name in missing}
    return tuple(entries.get(name) or FileEntry(name, store.blob(sums[name]).stat().st_size, sums[name]) for name in names)


def taken(name: str, patterns: Sequence[str]) -> bool:
    """Whether a file of a checkpoint is taken: never a pickle, and weights from the root only.

    A ``*`` matches across folders, so that ``*.safetensors`` would take those of a Trainer's ``checkpoint-500/`` as well.
    """
    if matches(name, PICKLES) or ("/" in name and name.endswith(WEIGHTS)):
        return False
    return matches(name, patterns)


def matches(name: str, patterns: Sequence[str]) -> bool:
    """Whether any of the globs matches; upper and lower case count."""
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)


def require_checkpoint(names: list[str], field: str, value: str, all_names: list[str]) -> None:
    """Refuse what cannot become a model before it is logged as one.

    Raises:
        SnapshotError: no ``config.json``, no tokenizer or no safetensors weights in the root among `names`.
    """
    if "config.json" not in names:
        raise SnapshotError(field, value, "holds no config.json", "name the folder that save_pretrained wrote")
    if not any(name.endswith(WEIGHTS) and "/" not in name for name in names):
        pickles = [name for name in all_names if matches(name, PICKLES)]
        found = (
            f"its weights are pickles ({', '.join(pickles[:3])}), which run code when loaded" if pickles else "holds no safetensors weights"
        )
        raise SnapshotError(field, value, found, "save it again with model.save_pretrained(…), which writes safetensors")
    if not any(name in names for name in ("tokenizer.json", "tokenizer.model", "vocab.json")):
        raise SnapshotError(field, value, "holds no tokenizer", "save it beside the weights with tokenizer.save_pretrained(…)")
