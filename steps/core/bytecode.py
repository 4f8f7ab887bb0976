"""Bytecode that Python itself wrote beside a source, told from bytecode that somebody put there.

Python runs a ``.pyc`` in ``__pycache__`` in place of its source where the file's header says so,
whatever the source says. Where a model is used in its artifact store, Python writes such files;
they do no harm where they hold what this interpreter compiles the source to, and all others are
files as any other.

Run as a program, ``python -I -S bytecode.py`` compares pairs of files: compiling somebody's source
can take the interpreter down, so a process of its own does it. Bytecode is read by a reader in
Python, since ``marshal`` is not made for data of others.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import marshal
import re
import struct
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

CACHE = "__pycache__"  # Python looks for bytecode in place of a source in no other folder
NAME = re.compile(
    rf"(?P<stem>.+)\.{re.escape(str(sys.implementation.cache_tag))}(?:\.opt-(?P<level>[12]))?\.pyc"
)
HEADER = 16  # bytes before the code: magic, flags, and what says whether the source changed
# bytes of a source or its bytecode; the largest of the standard library has under one million
LARGEST = 16 * 1024**2
MEMORY, SECONDS = 1 << 30, 30  # of the comparison: compiling a module takes milliseconds
REFERENCED = 0x80  # marshal: the object is kept, to be named by its number later
SINGLE = {b"N": None, b"T": True, b"F": False, b".": Ellipsis}


def written_by_python(folder: Path, files: Sequence[Path]) -> frozenset[Path]:
    """Which of a folder's files are bytecode that this Python makes of the source beside it.

    Args:
        folder: that the files are in.
        files: regular files and links to such, all of the folder's.
    """
    there, pairs = {*files}, []
    for path in files:
        match = NAME.fullmatch(path.name) if path.parent.name == CACHE else None
        source = path.parent.parent / f"{match['stem']}.py" if match else None
        if source in there and folder in path.parents and not path.is_symlink():
            pairs.append([str(path), str(source)])
    if not pairs:
        return frozenset()
    command = [sys.executable, "-I", "-S", "-W", "ignore", __file__]
    try:
        done = subprocess.run(
            command,
            input=json.dumps(pairs),
            capture_output=True,
            text=True,
            timeout=4 * SECONDS,
            check=True,
            env={},
        )
        same: list[str] = json.loads(done.stdout)
    except (OSError, subprocess.SubprocessError, ValueError):
        return frozenset()
    return frozenset(map(Path, same))


def is_of(bytecode: bytes, source: bytes, level: int) -> bool:
    """Whether bytecode holds what a source is compiled to; the path that it was compiled at is not
    compared.

    Args:
        bytecode: of the file, header included.
        source: of the file.
        level: of optimisation.
    """
    if bytecode[:4] != importlib.util.MAGIC_NUMBER:
        return False
    try:
        code = compile(source, "<source>", "exec", dont_inherit=True, optimize=level)
        return _Reader(marshal.dumps(code)).whole() == _Reader(bytecode[HEADER:]).whole()
    except (ValueError, SyntaxError, IndexError, struct.error, RecursionError, MemoryError):
        return False


class _Reader:
    """What ``marshal`` wrote (version 4, as Python 3.11 writes it), as nested tuples that compare
    by type and value.
    """

    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0
        self.kept: list[object] = []

    def whole(self) -> object:
        """The one object.

        Raises:
            ValueError, IndexError, struct.error: it is not one.
        """
        value = self._object()
        if self.at != len(self.data):
            raise ValueError("more than one object")
        return value

    def _take(self, size: int) -> bytes:
        if not 0 <= size <= len(self.data) - self.at:
            raise ValueError("it ends too early")
        self.at += size
        return self.data[self.at - size : self.at]

    def _int(self) -> int:
        return int(struct.unpack("<i", self._take(4))[0])

    def _object(self) -> object:
        first = self._take(1)[0]
        kind = bytes([first & ~REFERENCED])
        if kind == b"r":
            value = self.kept[self._int()]
            if value is None:
                raise ValueError("an object within itself")
            return value
        place = len(self.kept)
        if first & REFERENCED:
            self.kept.append(None)
        value = self._value(kind)
        if first & REFERENCED:
            self.kept[place] = value
        return value

    def _value(self, kind: bytes) -> tuple[object, ...]:
        if kind in SINGLE:
            return "one", repr(SINGLE[kind])
        if kind == b"i":
            return "int", self._int()
        if kind == b"l":
            size = self._int()
            digits = struct.unpack(f"<{abs(size)}H", self._take(2 * abs(size)))
            whole = sum(digit << 15 * position for position, digit in enumerate(digits))
            return "int", whole if size > 0 else -whole
        if kind in b"gy":
            return kind, self._take(8 if kind == b"g" else 16)
        if kind == b"s":
            return "bytes", self._take(self._int())
        if kind in b"utaA":
            return "str", self._take(self._int()).decode("utf-8", "surrogatepass")
        if kind in b"zZ":
            return "str", self._take(self._take(1)[0]).decode("ascii")
        if kind in b"()":
            size = self._int() if kind == b"(" else self._take(1)[0]
            return "tuple", tuple(self._object() for _ in range(size))
        if kind == b">":
            return "frozenset", tuple(sorted(repr(self._object()) for _ in range(self._int())))
        if kind == b"c":
            numbers = tuple(self._int() for _ in range(5))
            parts = [self._object() for _ in range(8)]
            del parts[5]  # the path of the source
            line = self._int()
            return "code", numbers, tuple(parts), line, self._object(), self._object()
        raise ValueError(f"an object of kind {kind!r}")


def _read(path: str) -> bytes:
    with Path(path).open("rb") as stream:
        data = stream.read(LARGEST + 1)
    if len(data) > LARGEST:
        raise ValueError(f"{path} is too large")
    return data


def main() -> None:
    """Print which bytecode files of the pairs on stdin are of their sources."""
    import resource

    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
    same = []
    for path, source in json.load(sys.stdin):
        match = NAME.fullmatch(Path(path).name)
        level = int(match["level"] or 0) if match else 0
        with contextlib.suppress(OSError, ValueError):
            if is_of(_read(path), _read(source), level):
                same.append(path)
    print(json.dumps(same))


if __name__ == "__main__":
    main()
