"""Which bytecode counts as a model's bytes."""

import marshal
import os
import py_compile
import subprocess
import sys
from pathlib import Path

import pytest

from steps.core import bytecode, digest
from steps.core.errors import StepError

TAG = sys.implementation.cache_tag  # of this Python, in the names of its bytecode
SOURCE = """
'''A module.'''
NUMBERS = frozenset({1, 2.5, -0.0, 1j, "a", b"b", None, True, ...})
BIG = 12345678901234567890123


def answer(x: int, *, y: str = "é") -> list[str]:
    assert x, "no"
    return [f"{x}{y}" for _ in range(BIG % 7)]


class Model:
    kind = (1, (2, "three"), None)

    async def predict(self):
        try:
            return await self.kind
        finally:
            del self.kind
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model of one module."""
    made = tmp_path / "model"
    (made / "code").mkdir(parents=True)
    (made / "MLmodel").write_text("flavors: {}\n")
    (made / "code" / "chat.py").write_text(SOURCE)
    return made


def compiled(folder: Path, source: str, level: int = 0, name: str = "chat") -> Path:
    """Bytecode of a source, put where Python runs it in place of chat.py."""
    other = folder.parent / "other.py"
    other.write_text(source)
    ending = f".opt-{level}" if level else ""
    place = folder / "code" / "__pycache__" / f"{name}.{TAG}{ending}.pyc"
    mode = py_compile.PycInvalidationMode.UNCHECKED_HASH
    py_compile.compile(
        str(other), cfile=str(place), invalidation_mode=mode, optimize=level, doraise=True
    )
    return place


@pytest.mark.parametrize("optimised", ["", "-O", "-OO"])
def test_bytecode_that_python_wrote_is_left_out(folder: Path, optimised: str) -> None:
    before = digest.of_folder(folder)
    command = [sys.executable, *filter(None, [optimised]), "-c", "import chat"]
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPYCACHEPREFIX"}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    subprocess.run(command, cwd=folder / "code", env=environment, check=True)
    assert list(folder.rglob("*.pyc"))
    assert digest.of_folder(folder) == before and digest.about_bytecode(folder) == ""


@pytest.mark.parametrize(
    "change",
    [
        ("2.5", "2.25"),
        ("-0.0", "0"),
        ("True, ...", "False, ..."),
        ("BIG % 7", "BIG % 8"),
        ('"no"', '"yes"'),
        ("del self.kind", "pass"),
        ("A module", "B module"),
        ("y: str", "y: int"),
        ("async def predict", "async def answer"),
    ],
)
@pytest.mark.parametrize("level", [0, 1])
def test_bytecode_of_another_source_counts(
    folder: Path, change: tuple[str, str], level: int
) -> None:
    before = digest.of_folder(folder)
    source = SOURCE.replace(*change).replace(
        "await self", "self" if "def" in change else "await self"
    )
    compiled(folder, SOURCE, level)
    assert digest.of_folder(folder) == before
    compiled(folder, source, level)
    if level and "no" in change[0]:  # the assertion is not in it
        assert digest.of_folder(folder) == before
        return
    assert digest.of_folder(folder) != before
    assert f"code/__pycache__/chat.{TAG}" in digest.about_bytecode(folder)
    assert "rm -r" in digest.about_bytecode(folder)


@pytest.mark.parametrize(
    "path",
    [
        "code/__pycache__/chat.cpython-27.pyc",
        f"code/__pycache__/other.{TAG}.pyc",
        f"code/__pycache__/chat.{TAG}.pyc",
        f"code/__pycache__/chat.{TAG}.opt-3.pyc",
        "code/__pycache__/readme.txt",
        f"__pycache__/chat.{TAG}.pyc",
        "code/chat.pyc",
        "code/registered_model_meta",
        "registered_model_meta/__init__.py",
        "registered_model_meta/x/y.py",
        "code/evil.pth",
        "code/sitecustomize.py",
        "code/__PYCACHE__/x.py",
    ],
)
def test_every_other_file_counts(folder: Path, path: str) -> None:
    before = digest.of_folder(folder)
    (folder / path).parent.mkdir(parents=True, exist_ok=True)
    (folder / path).write_bytes(b"x")
    assert digest.of_folder(folder) != before


def test_note_of_mlflow_is_left_out_at_the_top_alone(folder: Path) -> None:
    before = digest.of_folder(folder)
    (folder / "registered_model_meta").write_text("model_name: x\n")
    assert digest.of_folder(folder) == before


def test_what_no_digest_covers_is_refused(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "x.py").write_text("x = 1\n")
    for name, target in (("code2", tmp_path / "elsewhere"), ("gone.py", tmp_path / "gone")):
        (folder / name).symlink_to(target)
        with pytest.raises(StepError, match=f"{name} is a link, whose bytes no digest covers"):
            digest.of_folder(folder)
        (folder / name).unlink()
    os.mkfifo(folder / "pipe")
    with pytest.raises(StepError, match="pipe is a device, a socket or a pipe"):
        digest.of_folder(folder)
    (folder / "pipe").unlink()
    (folder / "x.py").symlink_to(tmp_path / "elsewhere" / "x.py")
    with pytest.raises(StepError, match=r"x\.py is a link"):
        digest.files_of(folder, links_outside=False)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\xff",
        b"\xe3" + b"(" * 5000,
        b"r\x00\x00\x00\x00",
        b"r\xff\xff\xff\xff",
        b"\xa9\x01r\x00\x00\x00\x00",
        b"(\xff\xff\xff\x7f",
        b"l\x00\x00\x00\x80",
        marshal.dumps(compile(SOURCE, "x", "exec")) + b"N",
    ],
)
def test_odd_bytecode_is_not_of_a_source(body: bytes) -> None:
    import importlib.util

    header = importlib.util.MAGIC_NUMBER + bytes(12)
    assert not bytecode.is_of(header + body, SOURCE.encode(), 0)
    assert bytecode.is_of(header + marshal.dumps(compile(SOURCE, "x", "exec")), SOURCE.encode(), 0)
