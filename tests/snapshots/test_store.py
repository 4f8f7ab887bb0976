"""The store: what it hands out is whole, or it says what is not."""

import errno
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from steps.core.digest import sha256_of
from steps.snapshots.errors import DamagedError, SnapshotError
from steps.snapshots.fetch import fetch
from steps.snapshots.manifest import Snapshot
from steps.snapshots.store import Store, default_root
from tests.snapshots.conftest import configured

ROOT = Path(__file__).resolve().parents[2]


def taken(checkpoint: Path, store: Store) -> Snapshot:
    """The checkpoint folder's snapshot."""
    return fetch(configured("local", path=str(checkpoint)), store)


def rewrite(blob: Path, content: bytes) -> None:
    """Change a blob and put its times back, as rot or malice would."""
    before = blob.stat()
    blob.chmod(0o644)
    blob.write_bytes(content)
    os.utime(blob, ns=(before.st_atime_ns, before.st_mtime_ns))


def test_default_root(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SLM_STORE", str(tmp_path / "chosen"))
    assert default_root() == tmp_path / "chosen"
    monkeypatch.delenv("SLM_STORE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_root() == tmp_path / "slm-promote"


def test_a_folder_is_links_to_blobs(checkpoint: Path, store: Store) -> None:
    snapshot = taken(checkpoint, store)
    folder = store.checkpoint(snapshot)
    for entry in snapshot.files:
        assert (folder / entry.path).samefile(store.blob(entry.sha256))
        assert (folder / entry.path).read_bytes() == (checkpoint / entry.path).read_bytes()
    assert store.onnx(snapshot) is None


@pytest.mark.parametrize("damage", ["flip", "truncate", "grow", "delete"])
def test_a_changed_byte_is_found(checkpoint: Path, store: Store, damage: str) -> None:
    snapshot = taken(checkpoint, store)
    store.checkpoint(snapshot)
    entry = next(entry for entry in snapshot.files if entry.path == "model.safetensors")
    blob = store.blob(entry.sha256)
    content = blob.read_bytes()
    if damage == "delete":
        blob.unlink()
    else:
        rewrite(
            blob,
            {
                "flip": content[:-1] + bytes([content[-1] ^ 1]),
                "truncate": content[:-1],
                "grow": content + b"\0",
            }[damage],
        )
    assert store.damaged(snapshot.files) == [entry]
    with pytest.raises(
        DamagedError,
        match=rf"model\.safetensors \(sha256 {entry.sha256}\).*mlflow run \. -e fetch_model",
    ):
        store.checkpoint(snapshot)
    assert taken(checkpoint, store) == snapshot  # mended from its source
    assert sha256_of(store.checkpoint(snapshot) / entry.path) == entry.sha256


@pytest.mark.parametrize("change", ["extra", "missing", "replaced"])
def test_a_folder_that_somebody_changed_is_laid_out_anew(
    checkpoint: Path, store: Store, change: str
) -> None:
    snapshot = taken(checkpoint, store)
    folder = store.checkpoint(snapshot)
    if change == "extra":
        (folder / "modeling_evil.py").write_text("print('hello')")
    else:
        (folder / "config.json").unlink()
    if change == "replaced":
        (folder / "config.json").write_text("{}")
    again = store.checkpoint(snapshot)
    assert again == folder
    assert {path.name: sha256_of(path) for path in again.iterdir()} == {
        entry.path: entry.sha256 for entry in snapshot.files
    }


def test_works_where_links_are_not_supported(
    checkpoint: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EOPNOTSUPP, "no hard links here")

    monkeypatch.setattr(os, "link", refuse)
    snapshot = taken(checkpoint, store)
    folder = store.checkpoint(snapshot)
    assert {path.name: sha256_of(path) for path in folder.iterdir()} == {
        entry.path: entry.sha256 for entry in snapshot.files
    }
    (folder / "config.json").chmod(0o644)
    (folder / "config.json").write_text("{}")
    assert sha256_of(store.checkpoint(snapshot) / "config.json") == sha256_of(
        checkpoint / "config.json"
    )


def test_scratch_of_the_dead_is_cleared_and_of_the_living_is_not(store: Store) -> None:
    abandoned = store.root / "scratch" / "abandoned"
    (abandoned / "deep").mkdir(parents=True)
    (abandoned / "deep" / "file").write_bytes(b"x" * 1000)
    with store.scratch() as mine:
        Store(store.root)
        assert mine.is_dir()
        assert not abandoned.exists()
    assert list((store.root / "scratch").iterdir()) == []


def test_a_blob_that_is_whole_is_not_replaced(store: Store, tmp_path: Path) -> None:
    source = tmp_path / "file"
    source.write_bytes(b"same")
    entry = store.add(source, "one")
    folder = store.folder([entry])
    store.add(source, "two", move=True)
    assert (folder / "one").samefile(store.blob(entry.sha256))
    assert not source.exists()


def test_an_empty_store_names_three_files_and_the_command(
    checkpoint: Path, store: Store, tmp_path: Path
) -> None:
    snapshot = taken(checkpoint, store)
    with pytest.raises(
        DamagedError,
        match=r" and 2 more of 5 files; get them again: .* with the same model= override",
    ) as caught:
        Store(tmp_path / "other").checkpoint(snapshot)
    assert str(caught.value).count("sha256") == 3


@pytest.mark.parametrize("place", ["file", "file/below"])
def test_a_place_that_cannot_be_a_store_is_one_error(tmp_path: Path, place: str) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(
        SnapshotError,
        match=(
            rf"store\.path='{tmp_path}/{place}': cannot be used as a store: .*; name a folder that"
            r" can be"
        ),
    ):
        Store(tmp_path / place)


def test_says_how_much_space_is_missing(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil._ntuple_diskusage(10, 9, 1_000_000_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with pytest.raises(
        SnapshotError,
        match=(
            r"the model needs 7\.6 GB, 1\.0 GB are free; free some, or choose another disk with"
            r" store\.path=…"
        ),
    ):
        store.need_space(7_600_000_000, "the model")


FILL = """
import sys
from pathlib import Path
from steps.snapshots.errors import SnapshotError
from steps.snapshots.store import Store
store = Store(sys.argv[1])
store.need_space = lambda *_: None  # as when another process fills the disk after the check
small, large = Path(sys.argv[2]), Path(sys.argv[3])
kept = store.add(small, "small")
try:
    store.add(large, "large")
except SnapshotError as error:
    print(error)
print("kept", store.damaged([kept]) == [], "blobs", sum(path.is_file() for path in (store.root / "blobs").rglob("*")),
      "scratch", len(list((store.root / "scratch").iterdir())))
"""  # noqa: E501


def test_a_disk_that_fills_up(tmp_path: Path) -> None:
    mount, small, large = tmp_path / "disk", tmp_path / "small", tmp_path / "large"
    mount.mkdir()
    small.write_bytes(b"s" * 1000)
    large.write_bytes(b"l" * 3_000_000)
    command = (
        f"mount -t tmpfs -o size=1m tmpfs {mount} && exec {sys.executable} -c '{FILL}'"
        f" {mount}/store {small} {large}"
    )
    if subprocess.run(
        ["unshare", "-rm", "mount", "-t", "tmpfs", "tmpfs", str(mount)],
        capture_output=True,
        check=False,
    ).returncode:
        pytest.skip("this machine lets nobody mount a small disk")
    done = subprocess.run(
        ["unshare", "-rm", "sh", "-c", command],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert "the disk is full while writing large; free some" in done.stdout
    assert "kept True blobs 1 scratch 0" in done.stdout
