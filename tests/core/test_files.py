"""Folders that somebody's code has filled are removed, however deep they are."""

import os
from pathlib import Path

import pytest

from steps.core.files import remove_tree, temporary_folder


def nest(folder: Path, levels: int) -> None:
    """Folders within folders, deeper than a path may be long."""
    at = os.open(folder, os.O_RDONLY)
    for _ in range(levels):
        os.mkdir("d", dir_fd=at)
        inner = os.open("d", os.O_RDONLY, dir_fd=at)
        os.close(at)
        at = inner
    os.close(os.open("file", os.O_WRONLY | os.O_CREAT, dir_fd=at))
    os.close(at)


def test_deep_folders_are_removed() -> None:
    with temporary_folder("slm-test-") as folder:
        nest(folder, 3000)
        (folder / "beside").write_text("text")
    assert not folder.exists()


def test_closed_folders_are_removed_and_links_not_followed(tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    kept.mkdir()
    (kept / "file").write_text("text")
    folder = tmp_path / "folder"
    (folder / "closed" / "inner" / "deep").mkdir(parents=True)
    (folder / "closed" / "inner" / "link").symlink_to(kept)
    (folder / "link").symlink_to(kept)
    (folder / "closed" / "inner").chmod(0)
    (folder / "closed").chmod(0)
    remove_tree(folder)
    assert not folder.exists()
    assert (kept / "file").read_text() == "text"


def test_what_cannot_be_removed_is_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = tmp_path / "file"
    file.write_text("text")
    remove_tree(file)
    assert f"{file} could not be removed" in caplog.text
    remove_tree(tmp_path / "missing")
    assert len(caplog.records) == 1
