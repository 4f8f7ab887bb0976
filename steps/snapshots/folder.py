"""A checkpoint folder on this machine, taken into the store by copy: it may change afterwards, the snapshot does not."""

import fnmatch
import logging
from pathlib import Path

from steps.config.errors import ConfigError
from steps.config.model import ModelConfig
from steps.snapshots.card import card_licence
from steps.snapshots.errors import SnapshotError
from steps.snapshots.manifest import Snapshot, listing_digest
from steps.snapshots.store import Store
from steps.snapshots.weights import parameter_count

log = logging.getLogger(__name__)


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
    chosen = [name for name in names if any(fnmatch.fnmatch(name, pattern) for pattern in model.patterns)]
    require_checkpoint(chosen, "model.path", str(model.path), names)
    parameter_count(folder)  # refuses a file that is cut short before it is copied
    store.need_space(sum((folder / name).stat().st_size for name in chosen), f"a copy of {folder.name}")
    files = tuple(store.add(folder / name, name) for name in chosen)
    revision = f"sha256-{listing_digest(files)[:16]}"
    log.info("%s: %d files taken from the folder, %d left", folder.name, len(chosen), len(names) - len(chosen))
    return Snapshot("folder", folder.name, None, revision, model.licence or card_licence(folder / "README.md"), files)


def require_checkpoint(names: list[str], field: str, value: str, all_names: list[str]) -> None:
    """Refuse what cannot become a model before it is logged as one.

    Raises:
        SnapshotError: no ``config.json``, no tokenizer or no safetensors weights among `names`.
    """
    if "config.json" not in names:
        raise SnapshotError(field, value, "holds no config.json", "name the folder that save_pretrained wrote")
    if not any(name.endswith(".safetensors") for name in names):
        pickles = [name for name in all_names if name.endswith((".bin", ".pt", ".pth"))]
        found = (
            f"its weights are pickles ({', '.join(pickles[:3])}), which run code when loaded" if pickles else "holds no safetensors weights"
        )
        raise SnapshotError(field, value, found, "save it again with model.save_pretrained(…), which writes safetensors")
    if not any(name in names for name in ("tokenizer.json", "tokenizer.model", "vocab.json")):
        raise SnapshotError(field, value, "holds no tokenizer", "save it beside the weights with tokenizer.save_pretrained(…)")
