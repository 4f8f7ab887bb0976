"""What a snapshot is: where a checkpoint came from, and the size and SHA-256 of its every file."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import PurePosixPath
from typing import Any

from steps.core import digest

SCHEMA = "slm-promote/snapshot/1"


@dataclass(frozen=True, order=True)
class FileEntry:
    """One file of a snapshot.

    Attributes:
        path: POSIX path relative to the snapshot's folder.
        size: bytes.
        sha256: 64 lower-case hexadecimal digits.
    """

    path: str
    size: int
    sha256: str

    def __post_init__(self) -> None:
        pure = PurePosixPath(self.path)
        if pure.is_absolute() or not pure.parts or ".." in pure.parts or "\\" in self.path:
            raise ValueError(
                f"path={self.path!r}: expected a relative POSIX path that stays inside its folder"
            )


def listing_digest(files: Iterable[FileEntry]) -> str:
    """SHA-256, in hexadecimal, over the sorted lines ``path size sha256``."""
    text = "".join(f"{entry.path} {entry.size} {entry.sha256}\n" for entry in sorted(files))
    return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True)
class Snapshot:
    """A checkpoint at one revision, byte by byte. Holds no local path, no secret and no timestamp.

    Attributes:
        source: ``package``, ``hub``, ``folder`` or ``generated``.
        name: what the source calls it: a Hub repository, a distribution, a folder's name, an
            architecture.
        requested: the revision as the config asked for it; None where it asked for none.
        revision: what that resolved to.
        licence: SPDX identifier, or None where the source states none.
        files: the checkpoint's files.
        onnx_files: files of a prebuilt ONNX Runtime GenAI folder; empty where there is none.
        origin: further facts of where the bytes come from, such as the SHA-256 of a wheel.
    """

    source: str
    name: str
    requested: str | None
    revision: str
    licence: str | None
    files: tuple[FileEntry, ...]
    onnx_files: tuple[FileEntry, ...] = ()
    origin: Mapping[str, str] = field(default_factory=dict)

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(entry.size for entry in (*self.files, *self.onnx_files))

    @property
    def digest(self) -> str:
        """``sha256:…`` over everything but `requested`: a branch and its commit are the same
        snapshot.
        """
        content = {key: value for key, value in self._content().items() if key != "requested"}
        text = json.dumps(content, sort_keys=True, separators=(",", ":"))
        return digest.of_bytes(text.encode())

    def _content(self) -> dict[str, Any]:
        content = asdict(self)
        content["files"] = [asdict(entry) for entry in sorted(self.files)]
        content["onnx_files"] = [asdict(entry) for entry in sorted(self.onnx_files)]
        return content

    def to_json(self) -> str:
        """The text of ``snapshot.json``."""
        return (
            json.dumps({"schema": SCHEMA, "digest": self.digest, **self._content()}, indent=2)
            + "\n"
        )

    @classmethod
    def from_json(cls, text: str) -> "Snapshot":
        """Read ``snapshot.json``.

        Raises:
            ValueError: it is not JSON, has another schema, or its digest is not that of its
                content.
        """
        content = json.loads(text)
        if not isinstance(content, dict) or content.get("schema") != SCHEMA:
            found = content.get("schema") if isinstance(content, dict) else type(content).__name__
            raise ValueError(f"snapshot.json: schema={found!r}: expected {SCHEMA!r}")
        digest = content.pop("digest", None)
        del content["schema"]
        try:
            for key in ("files", "onnx_files"):
                content[key] = tuple(FileEntry(**entry) for entry in content[key])
            snapshot = cls(**content)
        except (KeyError, TypeError) as error:
            raise ValueError(
                f"snapshot.json: expected the fields of {SCHEMA!r}: {error}"
            ) from error
        if snapshot.digest != digest:
            raise ValueError(
                f"snapshot.json: digest={digest!r}: expected {snapshot.digest!r}: the file was"
                " changed"
            )
        return snapshot
