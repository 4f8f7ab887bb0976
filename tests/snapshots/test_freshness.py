"""Whether what an earlier run fetched still stands: a folder by its bytes, a branch by what it
means now.
"""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from steps.config.model import ModelConfig
from steps.snapshots import freshness
from steps.snapshots.errors import SnapshotError
from steps.snapshots.fetch import fetch
from steps.snapshots.store import Store
from tests.snapshots.conftest import change, configured
from tests.snapshots.hub_server import Hub, Repo, serve

REPO, COMMIT = "someone/small", "a" * 40


@pytest.fixture
def hub(checkpoint: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    """A hub that serves the checkpoint folder; what revisions mean is not remembered from other
    tests.
    """
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub-cache"))
    # the client backs off for 23 seconds
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda _: None)
    freshness.meaning.cache_clear()
    with serve(
        Hub({REPO: Repo(COMMIT, {path.name: path for path in checkpoint.iterdir()})})
    ) as served:
        monkeypatch.setenv("HF_ENDPOINT", served.url)
        yield served
    freshness.meaning.cache_clear()


def by_path(checkpoint: Path) -> ModelConfig:
    return configured("local", path=str(checkpoint))


def by_branch() -> ModelConfig:
    return configured("smollm2_135m_hub", repo=REPO, revision="main", licence=None)


def test_an_unchanged_folder_stands_whatever_its_times_are(checkpoint: Path, store: Store) -> None:
    snapshot = fetch(by_path(checkpoint), store)
    assert freshness.stale(by_path(checkpoint), snapshot, store) is None
    os.utime(checkpoint / "config.json", (1, 1))
    (checkpoint / "notes.txt").write_text("not the checkpoint's")
    assert freshness.stale(by_path(checkpoint), snapshot, store) is None


def test_a_changed_byte_is_found_also_where_its_size_is_the_same(
    checkpoint: Path, store: Store
) -> None:
    snapshot = fetch(by_path(checkpoint), store)
    assert freshness.stale(by_path(checkpoint), snapshot, store) is None
    weights = checkpoint / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x01")
    assert (
        freshness.stale(by_path(checkpoint), snapshot, store)
        == f"model.safetensors changed in model.path='{checkpoint}'"
    )
    change(checkpoint / "config.json", rope_theta=500000.0)
    (checkpoint / "README.md").unlink()
    reason = freshness.stale(by_path(checkpoint), snapshot, store)
    assert (
        reason == f"README.md, config.json, model.safetensors changed in model.path='{checkpoint}'"
    )


def test_a_folder_that_went_away_says_so(checkpoint: Path, store: Store) -> None:
    snapshot = fetch(by_path(checkpoint), store)
    checkpoint.rename(checkpoint.with_name("elsewhere"))
    assert "the folder cannot be read as it was: model.path=" in (
        freshness.stale(by_path(checkpoint), snapshot, store) or ""
    )


def test_damage_in_the_store_is_named(checkpoint: Path, store: Store) -> None:
    snapshot = fetch(by_path(checkpoint), store)
    store.blob(snapshot.files[0].sha256).unlink()
    reason = freshness.stale(by_path(checkpoint), snapshot, store)
    assert (
        reason
        == f"1 of its files are missing or changed in store.path='{store.root}', such as README.md"
    )


def test_a_branch_is_asked_for_once_and_stands_while_it_means_the_same(
    hub: Hub, store: Store
) -> None:
    snapshot = fetch(by_branch(), store)
    hub.asked.clear()
    assert [freshness.stale(by_branch(), snapshot, store) for _ in range(3)] == [None] * 3
    assert len(hub.asked) == 1


def test_a_branch_that_moved_is_named(hub: Hub, store: Store) -> None:
    snapshot = fetch(by_branch(), store)
    hub.repos[REPO].commit = "c" * 40
    reason = freshness.stale(by_branch(), snapshot, store)
    assert reason == f"model.revision='main' of {REPO} means {'c' * 40} now and meant {COMMIT}"


def test_a_branch_stands_with_a_warning_while_the_hub_is_away(
    hub: Hub, store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    snapshot = fetch(by_branch(), store)
    hub.failing = True
    assert freshness.stale(by_branch(), snapshot, store) is None
    assert "taking what model.revision='main' meant when it was fetched" in caplog.text


def test_a_hub_that_refuses_is_heard(hub: Hub, store: Store) -> None:
    snapshot = fetch(by_branch(), store)
    hub.repos.clear()
    with pytest.raises(SnapshotError, match=r"is unknown to the hub"):
        freshness.stale(by_branch(), snapshot, store)


def test_a_pinned_commit_asks_nobody(hub: Hub, store: Store) -> None:
    model = configured("smollm2_135m_hub", repo=REPO, revision=COMMIT, licence=None)
    snapshot = fetch(model, store)
    hub.asked.clear()
    assert freshness.stale(model, snapshot, store) is None
    assert hub.asked == []
