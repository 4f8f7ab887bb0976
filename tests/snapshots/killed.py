"""Kill a fetch or a build at its every step on the file system, one after the other, and look at
what it leaves.

    python -m tests.snapshots.killed folder|hub|build <checkpoint folder> <work folder> <stride>

A process of its own, which forks: imports are paid once, and no thread of pytest's is copied. An
audit hook counts what changes the disk and kills the process at the n-th such event; n grows until
the work ends alive.
"""

import itertools
import json
import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path

from steps.config.onnx import OnnxConfig
from steps.core.digest import sha256_of
from steps.snapshots import child, onnx_build, selection, supported
from steps.snapshots.fetch import fetch, request
from steps.snapshots.manifest import FileEntry
from steps.snapshots.store import Store
from steps.snapshots.store_folder import request_key
from tests.snapshots.conftest import configured

EVENTS = {"os.rename", "os.link", "os.chmod", "os.mkdir", "os.remove", "os.rmdir", "os.truncate"}
DIGEST = "sha256:" + "0" * 64


def die_at(step: int) -> None:
    """Kill this process at its `step`-th change of the disk."""
    left = step

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        nonlocal left
        writes = (
            event == "open"
            and isinstance(arguments[2], int)
            and bool(arguments[2] & (os.O_WRONLY | os.O_RDWR))
        )
        if writes or event in EVENTS:
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)


def in_fork(work: Callable[[], object], step: int | None = None) -> bool:
    """Run `work` in a fork, killed at `step`; whether it ended well.

    Raises:
        RuntimeError: it ended neither well nor by the kill.
    """
    pid = os.fork()
    if pid == 0:
        if step:
            die_at(step)
        try:
            work()
        except BaseException:  # noqa: BLE001 (a fork must never run on into its parent's code)
            sys.excepthook(*sys.exc_info())
            os._exit(1)
        os._exit(0)
    status = os.waitpid(pid, 0)[1]
    if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL:
        return False
    if status:
        raise RuntimeError(f"ended with {os.waitstatus_to_exitcode(status)}")
    return True


def fake_builder(module: str, *arguments: str, **_: object) -> str:
    """Stands for the model builder: writes two files where the real one would."""
    if module == "steps.snapshots.model_builder":
        target = Path(arguments[arguments.index("-o") + 1])
        target.mkdir()
        (target / "model.onnx").write_bytes(b"onnx" * 1000)
        (target / "genai_config.json").write_text("{}")
    return ""


def main(kind: str, checkpoint: Path, root: Path, stride: int) -> int:
    """Kill `kind` at every `stride`-th step; returns how often it was killed."""
    if kind == "build":
        child.run = fake_builder  # type: ignore[assignment]
        key = "onnx-" + request_key(onnx_build.request(OnnxConfig(), DIGEST))

        def work() -> object:
            return onnx_build.build(checkpoint, OnnxConfig(), Store(root), DIGEST)

    else:
        revision = "a" * 40
        model = (
            configured("local", path=str(checkpoint))
            if kind == "folder"
            else configured("smollm2_135m_hub", repo="someone/small", revision=revision)
        )
        key = request_key(request(model))
        if kind == "hub":
            import huggingface_hub.file_download  # noqa: F401 (before the fork)
        place = selection.Place("model.path", str(checkpoint))
        # imports transformers
        supported.require(
            checkpoint, [path.name for path in checkpoint.iterdir()], place, prebuilt=False
        )

        def work() -> object:
            return Store(root).checkpoint(fetch(model, Store(root)))

    in_fork(work)
    whole = recorded(Store(root), key)
    for kills, steps in enumerate(itertools.count(1, stride)):
        shutil.rmtree(root)
        if in_fork(work, steps):
            return kills
        left = Store(root)
        for blob in (left.root / "blobs").glob("*/*"):
            assert sha256_of(blob) == blob.name, f"step {steps}: a half file stands among the blobs"
        if left.record(key) is not None:
            assert recorded(left, key) == whole, f"step {steps}: a record that differs"
            assert not left.damaged(whole), f"step {steps}: a record without its files"
        in_fork(work)  # the next one finishes the work …
        after = Store(root)
        assert recorded(after, key) == whole, f"step {steps}: another result after a kill"
        assert not after.damaged(whole)
        for name in ("scratch", "partial"):  # … and leaves nothing lying about
            assert not list((root / name).iterdir()), f"step {steps}: {name}/ is not empty"
    raise AssertionError("unreachable: the count has no end")


def recorded(store: Store, key: str) -> list[FileEntry]:
    """Files of a record: a snapshot's, or a build's."""
    content = json.loads(store.record(key) or "null")
    return [FileEntry(**entry) for entry in content["files"]]


if __name__ == "__main__":
    print(
        "killed", main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4])), "times"
    )
