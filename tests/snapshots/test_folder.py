"""A checkpoint folder: what is taken, and what is refused."""

import json
import shutil
from pathlib import Path

import pytest

from steps.core.errors import ConfigError
from steps.snapshots import folder
from steps.snapshots.errors import SnapshotError
from steps.snapshots.fetch import fetch
from steps.snapshots.store import Store
from tests.snapshots.conftest import change, configured

TAKEN = ["README.md", "config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"]


def test_takes_a_copy_with_the_licence_of_its_card(checkpoint: Path, store: Store) -> None:
    snapshot = fetch(configured("local", path=str(checkpoint)), store)
    assert (snapshot.source, snapshot.name, snapshot.licence) == ("folder", "checkpoint", "mit")
    assert str(checkpoint.parent) not in snapshot.to_json()
    weights = next(entry for entry in snapshot.files if entry.path == "model.safetensors")
    (checkpoint / "model.safetensors").write_bytes(b"changed afterwards")
    assert (store.checkpoint(snapshot) / "model.safetensors").stat().st_size == weights.size


def test_a_changed_folder_is_another_snapshot(checkpoint: Path, store: Store) -> None:
    first = fetch(configured("local", path=str(checkpoint)), store)
    change(checkpoint / "config.json", rope_theta=500000.0)
    second = fetch(configured("local", path=str(checkpoint)), store)
    assert first.revision != second.revision
    assert store.damaged((*first.files, *second.files)) == []


def test_configured_licence_wins(checkpoint: Path, store: Store) -> None:
    assert (
        fetch(configured("local", path=str(checkpoint), licence="Apache-2.0"), store).licence
        == "Apache-2.0"
    )


def test_pickles_and_code_stay_outside(checkpoint: Path, store: Store) -> None:
    for name in ("pytorch_model.bin", "modeling_mine.py", "optimizer.pt"):
        (checkpoint / name).write_bytes(b"x")
    names = [entry.path for entry in fetch(configured("local", path=str(checkpoint)), store).files]
    assert names == TAKEN


@pytest.mark.parametrize(
    ("missing", "message"),
    [
        ("config.json", r"holds no config\.json; name the folder that save_pretrained wrote"),
        ("tokenizer.json", r"holds no tokenizer; save it beside the weights"),
        (
            "model.safetensors",
            r"holds no safetensors weights; save it again with model\.save_pretrained",
        ),
    ],
)
def test_what_is_no_checkpoint_is_refused(
    checkpoint: Path, store: Store, missing: str, message: str
) -> None:
    (checkpoint / missing).unlink()
    with pytest.raises(SnapshotError, match=message):
        fetch(configured("local", path=str(checkpoint)), store)


def test_pickled_weights_are_named(checkpoint: Path, store: Store) -> None:
    (checkpoint / "model.safetensors").rename(checkpoint / "pytorch_model.bin")
    with pytest.raises(SnapshotError, match=r"its weights are pickles \(pytorch_model\.bin\)"):
        fetch(configured("local", path=str(checkpoint)), store)


def test_a_home_folder_is_not_walked_to_its_end(
    checkpoint: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folder, "MOST_FILES", 3)
    with pytest.raises(ConfigError, match="a checkpoint's folder, and it holds over 3 files"):
        fetch(configured("local", path=str(checkpoint)), store)


def test_no_such_folder(store: Store, tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"model\.path='.*nowhere': expected a folder that exists"
    ):
        fetch(configured("local", path=str(tmp_path / "nowhere")), store)


def test_weights_that_are_cut_short_are_refused(checkpoint: Path, store: Store) -> None:
    weights = checkpoint / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    with pytest.raises(
        SnapshotError, match=r"model='model\.safetensors': is not a whole safetensors file"
    ):
        fetch(configured("local", path=str(checkpoint)), store)


def test_a_missing_shard_is_named(checkpoint: Path, store: Store) -> None:
    one, other = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"
    (checkpoint / "model.safetensors").rename(checkpoint / one)
    index = checkpoint / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"weight": one, "bias": other}}))
    with pytest.raises(
        SnapshotError,
        match=(
            rf"model\.path='.*': {index.name} names {other}, which is not there; complete the"
            r" checkpoint"
        ),
    ):
        fetch(configured("local", path=str(checkpoint)), store)
    assert list((store.root / "records").iterdir()) == []
    shutil.copyfile(checkpoint / one, checkpoint / other)
    assert fetch(configured("local", path=str(checkpoint)), store).files


def test_a_second_run_copies_nothing_and_needs_no_space(
    checkpoint: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    needed: list[int] = []
    monkeypatch.setattr(store, "need_space", lambda size, _what: needed.append(size))
    first = fetch(configured("local", path=str(checkpoint)), store)
    blobs = {entry.path: store.blob(entry.sha256).stat().st_ino for entry in first.files}
    assert fetch(configured("local", path=str(checkpoint)), store) == first
    change(checkpoint / "config.json", rope_theta=500000.0)
    changed = fetch(configured("local", path=str(checkpoint)), store)
    assert needed == [first.size, 0, (checkpoint / "config.json").stat().st_size]
    assert {
        entry.path: store.blob(entry.sha256).stat().st_ino
        for entry in changed.files
        if entry in first.files
    }.items() < blobs.items()


def test_weights_are_taken_from_the_root_only(checkpoint: Path, store: Store) -> None:
    trainer = checkpoint / "checkpoint-500"
    trainer.mkdir()
    shutil.copyfile(checkpoint / "model.safetensors", trainer / "model.safetensors")
    names = [entry.path for entry in fetch(configured("local", path=str(checkpoint)), store).files]
    assert names == TAKEN
    (checkpoint / "model.safetensors").unlink()
    with pytest.raises(
        SnapshotError,
        match=(
            r"holds no safetensors weights beside config\.json, only in checkpoint-500; name the"
            r" folder that holds both"
        ),
    ):
        fetch(configured("local", path=str(checkpoint)), store)


def test_no_pattern_takes_a_pickle(checkpoint: Path, store: Store) -> None:
    for name in ("pytorch_model.bin", "optimizer.pt", "flax_model.msgpack", "deep/tf_model.h5"):
        (checkpoint / name).parent.mkdir(exist_ok=True)
        (checkpoint / name).write_bytes(b"x")
    names = [
        entry.path
        for entry in fetch(
            configured("local", path=str(checkpoint), allow_patterns=["*"]), store
        ).files
    ]
    assert names == TAKEN
