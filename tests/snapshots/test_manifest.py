"""``snapshot.json``: the same content, the same digest; changed content is refused."""

import json
from dataclasses import replace

import pytest

from steps.snapshots.manifest import FileEntry, Snapshot

FILES = (FileEntry("model.safetensors", 3, "a" * 64), FileEntry("config.json", 2, "b" * 64))
SNAPSHOT = Snapshot("hub", "someone/model", "main", "c" * 40, "MIT", FILES, (), {"onnx_repo": "x"})


def test_reads_what_it_wrote() -> None:
    again = Snapshot.from_json(SNAPSHOT.to_json())
    assert again.digest == SNAPSHOT.digest
    assert replace(again, files=FILES) == SNAPSHOT


def test_digest_ignores_order_and_how_it_was_asked_for() -> None:
    assert replace(SNAPSHOT, files=FILES[::-1], requested="c" * 40).digest == SNAPSHOT.digest


@pytest.mark.parametrize(
    "change",
    [
        {"revision": "d" * 40},
        {"licence": None},
        {"name": "someone/other"},
        {"files": FILES[:1]},
        {"onnx_files": FILES},
        {"origin": {}},
    ],
)
def test_digest_covers_the_rest(change: dict[str, object]) -> None:
    assert replace(SNAPSHOT, **change).digest != SNAPSHOT.digest  # type: ignore[arg-type]


@pytest.mark.parametrize("path", ["/etc/passwd", "../up", "a/../../b", "", "a\\b"])
def test_a_path_stays_inside_its_folder(path: str) -> None:
    with pytest.raises(ValueError, match="expected a relative POSIX path"):
        FileEntry(path, 1, "a" * 64)


def test_a_changed_file_is_refused() -> None:
    content = json.loads(SNAPSHOT.to_json())
    content["licence"] = "Apache-2.0"
    with pytest.raises(ValueError, match="the file was changed"):
        Snapshot.from_json(json.dumps(content))


@pytest.mark.parametrize(
    "text",
    [
        '{"schema": "other"}',
        "[]",
        '{"schema": "slm-promote/snapshot/1", "digest": "x", "name": "y"}',
    ],
)
def test_something_else_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"snapshot\.json"):
        Snapshot.from_json(text)
