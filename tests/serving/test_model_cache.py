"""Bytes on this machine: kept, verified, removed."""

import json
import os
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import mlflow
import pytest

from steps.core import digest
from steps.serving.model_cache import ModelCache
from steps.serving.served_version import ServedVersion
from steps.serving.worker_process import LoadFailedError

REGISTRY = "https://production.example.org"
TWO_DAYS = 172_800


@pytest.fixture
def version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ServedVersion:
    """A version whose files a stand-in for the registry hands out."""
    source = tmp_path / "source"
    source.mkdir()
    (source / "weights").write_bytes(b"weights")

    def download(artifact_uri: str, dst_path: str) -> str:
        assert artifact_uri == "models:/slm/3"
        target = Path(dst_path)
        target.mkdir(parents=True)
        (target / "weights").write_bytes((source / "weights").read_bytes())
        return dst_path

    monkeypatch.setattr(mlflow.artifacts, "download_artifacts", download)
    return ServedVersion("slm", 3, "onnx", digest.of_folder(source), model_id="m-1")


def test_bytes_are_fetched_once_and_again_where_they_are_damaged(
    tmp_path: Path, version: ServedVersion, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = ModelCache(tmp_path / "cache", REGISTRY)
    found, folder = cache.fetch(version)
    assert found == version
    (folder / "weights").write_bytes(b"damaged")
    assert cache.fetch(version) == (version, folder)
    assert (folder / "weights").read_bytes() == b"weights"
    monkeypatch.delattr(mlflow.artifacts, "download_artifacts")
    assert cache.fetch(version) == (version, folder)  # without the registry


def test_servers_on_one_machine_fetch_once(
    tmp_path: Path, version: ServedVersion, monkeypatch: pytest.MonkeyPatch
) -> None:
    download, fetches = mlflow.artifacts.download_artifacts, list[str]()

    def slow(artifact_uri: str, dst_path: str) -> str:
        fetches.append(dst_path)
        time.sleep(0.3)
        return str(download(artifact_uri=artifact_uri, dst_path=dst_path))

    monkeypatch.setattr(mlflow.artifacts, "download_artifacts", slow)
    with ThreadPoolExecutor(8) as pool:
        caches = [ModelCache(tmp_path / "cache", REGISTRY) for _ in range(8)]
        answers = list(pool.map(lambda cache: cache.fetch(version), caches))
    assert {found for found, _ in answers} == {version}
    assert len({folder for _, folder in answers}) == 1
    assert len(fetches) == 1
    # without a digest nobody knows beforehand that they are the same bytes
    unknown = replace(version, digest="")
    with ThreadPoolExecutor(4) as pool:
        others = list(pool.map(lambda cache: cache.fetch(unknown), caches[:4]))
    assert others == answers[:4]
    assert len(fetches) == 5


def test_other_bytes_than_the_tags_are_refused(tmp_path: Path, version: ServedVersion) -> None:
    cache = ModelCache(tmp_path / "cache", REGISTRY)
    with pytest.raises(LoadFailedError, match="its bytes are sha256:"):
        cache.fetch(replace(version, digest=f"sha256:{'0' * 64}"))
    assert [*(tmp_path / "cache" / "models").iterdir()] == []


@pytest.mark.parametrize("tag", ["sha256:../../etc", "sha256:0", "../x", f"sha256:{'A' * 64}"])
def test_a_tag_that_is_not_a_digest_names_no_folder(
    tmp_path: Path, version: ServedVersion, tag: str
) -> None:
    cache = ModelCache(tmp_path / "cache", REGISTRY)
    with pytest.raises(LoadFailedError, match="is not a digest"):
        cache.fetch(replace(version, digest=tag))
    cache.remember(replace(version, digest=tag), "champion")
    assert cache.remembered("slm", "champion") is None


def test_cached_bytes_are_not_taken_for_a_version_whose_files_were_never_compared(
    tmp_path: Path, version: ServedVersion, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = ModelCache(tmp_path / "cache", REGISTRY)
    cache.fetch(version)
    foreign = replace(version, number=4, model_id="")  # its tags name the digest, its source a file
    download, fetches = mlflow.artifacts.download_artifacts, list[str]()

    def other(artifact_uri: str, dst_path: str) -> str:
        fetches.append(artifact_uri)
        folder = Path(download(artifact_uri="models:/slm/3", dst_path=dst_path))
        (folder / "weights").write_bytes(b"other")
        return str(folder)

    monkeypatch.setattr(mlflow.artifacts, "download_artifacts", other)
    with pytest.raises(LoadFailedError, match="its bytes are sha256:"):
        cache.fetch(foreign)
    assert fetches == ["models:/slm/4"]
    cache.remember(foreign, "champion")  # as if they had been compared and served
    assert cache.fetch(foreign)[0] == foreign


def test_another_registry_has_other_versions(tmp_path: Path, version: ServedVersion) -> None:
    ModelCache(tmp_path / "cache", REGISTRY).remember(version, "champion")
    other = ModelCache(tmp_path / "cache", "https://staging.example.org")
    assert other.remembered("slm", "champion") is None


def test_what_was_served_last_is_known(tmp_path: Path, version: ServedVersion) -> None:
    cache = ModelCache(tmp_path / "cache", REGISTRY)
    assert cache.remembered("slm", "champion") is None
    cache.remember(version, "champion")
    assert cache.remembered("slm", "champion") == version
    assert cache.remembered("slm", "challenger") is None


@pytest.mark.parametrize(
    "damage", ["", "{", "[]", "7", {"digest": 7}, {"number": "3"}, {"name": "other"}, {"more": 1}]
)
def test_a_damaged_record_is_none(tmp_path: Path, version: ServedVersion, damage: Any) -> None:
    cache = ModelCache(tmp_path / "cache", REGISTRY)
    cache.remember(version, "champion")
    (record,) = (tmp_path / "cache" / "last").glob("*.json")
    text = damage
    if isinstance(damage, dict):
        text = json.dumps({**json.loads(record.read_text()), **damage})
    record.write_text(text)
    assert cache.remembered("slm", "champion") is None


def test_bytes_stay_a_day_after_they_were_served(tmp_path: Path, version: ServedVersion) -> None:
    cache = ModelCache(tmp_path / "cache", REGISTRY)
    _, folder = cache.fetch(version)
    old = time.time() - TWO_DAYS
    os.utime(folder, (old, old))
    cache.prune([version.digest])
    assert folder.is_dir()
    cache.touch(version.digest)
    cache.prune([])
    assert folder.is_dir()
    os.utime(folder, (old, old))
    cache.remember(version, "champion")
    cache.prune([])
    assert folder.is_dir()
    cache.remember(replace(version, digest=f"sha256:{'1' * 64}"), "champion")
    cache.prune([])
    assert not folder.exists()
