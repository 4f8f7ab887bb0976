"""A repository of the Hugging Face Hub, through its own client: only what the config allows, every
file checked against the Hub's own hash.

The client resumes within a file while it runs, and keeps whole files in ``partial/`` when it is
killed. `HF_ENDPOINT` names another hub; the token comes from `HF_TOKEN` alone: a token file in the
home directory would make a run depend on who started it.
"""

import logging
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from huggingface_hub import HfApi, snapshot_download
from huggingface_hub.hf_api import RepoFile
from huggingface_hub.utils.sha import git_hash

from steps.config.model import PICKLES, ModelConfig, PrebuiltOnnxConfig, Source
from steps.core.digest import sha256_of
from steps.snapshots import selection, supported
from steps.snapshots.card import card_licence
from steps.snapshots.errors import SnapshotError
from steps.snapshots.hub_errors import explained
from steps.snapshots.manifest import FileEntry, Snapshot
from steps.snapshots.repository import Repository
from steps.snapshots.selection import Place
from steps.snapshots.store import Store

log = logging.getLogger(__name__)

DEFAULT_ENDPOINT = "https://huggingface.co"


def repositories(model: ModelConfig) -> list[Repository]:
    """What of a model comes from the Hub: its checkpoint, its prebuilt ONNX folder, both or
    nothing.
    """
    wanted = (
        [Repository("model", str(model.repo), model.revision)] if model.source is Source.hub else []
    )
    if model.onnx is not None:
        wanted.append(Repository("model.onnx", model.onnx.repo, model.onnx.revision))
    return wanted


def fetch(model: ModelConfig, store: Store, key: str) -> Snapshot:
    """Snapshot of a Hub repository: its small files first, and its weights once those are found
    good.

    Raises:
        SnapshotError: the Hub refuses or cannot be reached, a name is wrong, bytes differ from the
            Hub's hash, or the checkpoint cannot be used.
    """
    repository = Repository("model", str(model.repo), model.revision)
    place = Place("model.repo", repository.repo, model.allow_patterns)
    revision = resolve(repository)
    listed = {file.path: file for file in _list(repository, revision)}
    partial = store.partial(key) / "checkpoint"
    small = selection.small_files(listed, model.allow_patterns)
    asked = (
        small
        if selection.has_weights(listed)
        else [name for name in selection.HINTS if name in listed]
    )
    entries = _download(
        repository, revision, [listed[name] for name in asked], partial, store, keep=True
    )
    with supported.laid_out(
        {entry.path: store.blob(entry.sha256) for entry in entries}, store
    ) as draft:
        weights = selection.weight_files(draft, listed, place)
        supported.require(draft, listed, place, prebuilt=model.onnx is not None)
        licence = model.licence or card_licence(draft / "README.md")
    names = {source: name for name, source in weights.items()}
    arrived = _download(repository, revision, [listed[source] for source in names], partial, store)
    files = (*entries, *(replace(entry, path=names[entry.path]) for entry in arrived))
    return Snapshot(
        "hub", repository.repo, repository.requested, revision, licence, tuple(sorted(files))
    )


@dataclass(frozen=True)
class Prebuilt:
    """A prebuilt ONNX folder that is there, none of it fetched yet.

    Attributes:
        repository: where it is.
        revision: commit.
        folder: within the repository; empty is its root.
        files: what it holds.
    """

    repository: Repository
    revision: str
    folder: str
    files: tuple[RepoFile, ...]


def find_prebuilt(onnx: PrebuiltOnnxConfig) -> Prebuilt:
    """Look a prebuilt ONNX folder up.

    Raises:
        SnapshotError: as `fetch`, or the folder holds no ``genai_config.json``.
    """
    repository = Repository("model.onnx", onnx.repo, onnx.revision)
    folder = onnx.folder.strip("/")
    prefix = f"{folder}/" if folder else ""
    revision = resolve(repository)
    listed = _list(repository, revision)
    chosen = tuple(
        file
        for file in listed
        if file.path.startswith(prefix) and not selection.matches(file.path, PICKLES)
    )
    if f"{prefix}genai_config.json" not in [file.path for file in chosen]:
        offered = sorted(
            {
                file.path.rpartition("/")[0]
                for file in listed
                if file.path.endswith("genai_config.json")
            }
        )
        cure = (
            f"the folders that do are {offered}"
            if offered
            else "none of its folders does: name another repository"
        )
        raise SnapshotError(
            "model.onnx.folder", folder, f"holds no genai_config.json in {repository.repo}", cure
        )
    return Prebuilt(repository, revision, folder, chosen)


def with_prebuilt_onnx(snapshot: Snapshot, onnx: Prebuilt, store: Store, key: str) -> Snapshot:
    """The snapshot with the files of a prebuilt ONNX folder; their paths are relative to it.

    Raises:
        SnapshotError: as `fetch`.
    """
    entries = _download(
        onnx.repository, onnx.revision, onnx.files, store.partial(key) / "onnx", store
    )
    files = tuple(
        FileEntry(entry.path.removeprefix(f"{onnx.folder}/"), entry.size, entry.sha256)
        for entry in entries
    )
    facts = {
        "onnx_repo": onnx.repository.repo,
        "onnx_revision": onnx.revision,
        "onnx_folder": onnx.folder,
    }
    return replace(snapshot, onnx_files=files, origin={**snapshot.origin, **facts})


def resolve(repository: Repository) -> str:
    """The commit that the requested revision means now; a branch or tag is warned about, for it may
    mean another tomorrow.

    Raises:
        SnapshotError: there is no such repository or revision, or the Hub cannot be reached.
    """
    if repository.pinned:
        return str(repository.requested)
    with explained(repository):
        revision = str(api().model_info(repository.repo, revision=repository.requested).sha)
    log.warning(
        "%s.revision=%r is not a commit: resolved to %s; pin it with %s.revision=%s",
        repository.field,
        repository.requested,
        revision,
        repository.field,
        revision,
    )
    return revision


def endpoint() -> str:
    """The Hub that is asked."""
    return os.environ.get("HF_ENDPOINT", DEFAULT_ENDPOINT).rstrip("/")


def token() -> str | bool:
    """`HF_TOKEN`, or False, which keeps the client from looking for a token file."""
    return os.environ.get("HF_TOKEN") or False


def api() -> HfApi:
    """The Hub's client for this environment."""
    return HfApi(endpoint=endpoint(), token=token(), library_name="slm-promote")


def _list(repository: Repository, revision: str) -> list[RepoFile]:
    with explained(repository):
        tree = api().list_repo_tree(repository.repo, revision=revision, recursive=True)
        return [file for file in tree if isinstance(file, RepoFile)]


def _download(
    repository: Repository,
    revision: str,
    files: Sequence[RepoFile],
    partial: Path,
    store: Store,
    *,
    keep: bool = False,
) -> tuple[FileEntry, ...]:
    """Bring files into the store; those whose SHA-256 it has already are not asked for.

    Args:
        repository: where they are.
        revision: commit.
        files: as listed.
        partial: where they arrive.
        store: where they are kept.
        keep: leave a copy in `partial`, so that small files, which are listed without a SHA-256,
            are not asked for again after a cut.
    """
    entries = [
        FileEntry(file.path, file.lfs.size, file.lfs.sha256)
        for file in files
        if file.lfs and store.has(file.lfs.sha256)
    ]
    here = {entry.path for entry in entries}
    missing = [file for file in files if file.path not in here]
    if missing:
        for cut in partial.rglob("*.incomplete"):
            # of a killed download: the client names each attempt anew and would never touch it
            # again
            cut.unlink()
        store.need_space(
            sum(file.size for file in missing if not (partial / file.path).is_file()),
            f"{repository.repo}'s download",
        )
        with explained(repository):
            snapshot_download(
                repository.repo,
                revision=revision,
                local_dir=partial,
                # exact names: these are globs
                allow_patterns=[re.sub(r"([\[*?])", r"[\1]", file.path) for file in missing],
                endpoint=endpoint(),
                token=token(),
                library_name="slm-promote",
            )
    for file in missing:
        path = partial / file.path
        _verify(repository, file, path)
        entries.append(store.add(path, file.path, move=not keep))
    return tuple(sorted(entries))


def _verify(repository: Repository, file: RepoFile, path: Path) -> None:
    """Compare with the Hub's hash: SHA-256 for large files, Git's blob id for the others.

    Raises:
        SnapshotError: they differ. The file is dropped, the others are kept.
    """
    if not path.is_file():
        raise SnapshotError(
            f"{repository.field}.repo",
            repository.repo,
            f"{file.path} did not arrive",
            "run the same command again",
        )
    if file.lfs:
        expected, arrived = file.lfs.sha256, sha256_of(path)
    else:
        expected, arrived = file.blob_id, git_hash(path.read_bytes())
    if expected != arrived:
        path.unlink()
        raise SnapshotError(
            f"{repository.field}.repo",
            repository.repo,
            f"{file.path} arrived as {arrived}, the hub lists it as {expected}",
            "run the same command again; if it repeats, the hub or a proxy before it serves other"
            " bytes",
        )
