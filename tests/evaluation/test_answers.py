"""An interrupted quality pass continues from the answers it has."""

import contextlib
import os
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from steps.evaluation import packs
from steps.evaluation.answers import Answer, AnswerStore, collect
from steps.evaluation.fetched import fetch
from steps.evaluation.packs import Item
from steps.evaluation.worker_process import (
    CandidateFailedError,
    CandidateProcess,
    Limits,
    ModelError,
)
from tests.evaluation.settings import PACK

LIMITS = Limits(120, 60)
PACK_DIGEST = "sha256:" + "1" * 64


def answer(name: str) -> Answer:
    return Answer(name, "text \u2028 with a line separator", "stop", 2, 0.1, 1.0)


def test_store_keeps_answers_by_model_pack_and_setting(tmp_path: Path) -> None:
    store = AnswerStore(tmp_path, "sha256:a", PACK_DIGEST, 64)
    store.add(answer("one"))
    store.add(answer("two"))
    assert store.read() == {"one": answer("one"), "two": answer("two")}
    for other in (
        ("sha256:b", PACK_DIGEST, 64),
        ("sha256:a", "sha256:2", 64),
        ("sha256:a", PACK_DIGEST, 32),
    ):
        assert AnswerStore(tmp_path, *other).read() == {}
    store.clear()
    assert AnswerStore(tmp_path, "sha256:a", PACK_DIGEST, 64).read() == {}


def test_unknown_bytes_are_never_remembered(tmp_path: Path) -> None:
    store = AnswerStore(tmp_path, "unknown", PACK_DIGEST, 64)
    store.add(answer("one"))
    assert store.read() == {} and not list(tmp_path.iterdir())


def test_a_line_cut_by_a_kill_is_asked_again(tmp_path: Path) -> None:
    store = AnswerStore(tmp_path, "sha256:a", PACK_DIGEST, 64)
    store.add(answer("one"))
    store.add(answer("two"))
    assert store.path is not None
    store.path.write_text(store.path.read_text()[:-20])
    assert set(store.read()) == {"one"}
    store.add(answer("two"))
    assert set(store.read()) == {"one", "two"}


def test_errors_and_lines_of_another_version_are_asked_again(tmp_path: Path) -> None:
    store = AnswerStore(tmp_path, "sha256:a", PACK_DIGEST, 64)
    store.add(answer("one"))
    store.add(replace(answer("two"), error="RuntimeError: a hiccup"))
    assert store.path is not None
    with store.path.open("a") as file:
        file.write('\n{"item": "three", "said": "a field of long ago"}\n[1]')
    assert set(store.read()) == {"one"}


def test_other_packages_and_other_models_do_not_share_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    AnswerStore(tmp_path, "sha256:a", PACK_DIGEST, 64, "m-1").add(answer("one"))
    assert set(AnswerStore(tmp_path, "sha256:a", PACK_DIGEST, 64, "m-1").read()) == {"one"}
    assert AnswerStore(tmp_path, "sha256:a", PACK_DIGEST, 64, "m-2").read() == {}
    monkeypatch.setattr("steps.evaluation.machine.packages", lambda: {"torch": "0"})
    assert AnswerStore(tmp_path, "sha256:a", PACK_DIGEST, 64, "m-1").read() == {}


def test_killed_in_the_middle_and_continued(clerk: Callable[[str], str], tmp_path: Path) -> None:
    """The process is killed after three answers; a second one is asked only for the rest, and the
    answers are those of one run.
    """
    pack = packs.load(str(PACK))
    store = AnswerStore(tmp_path, "sha256:a", pack.digest, 64)
    asked: list[str] = []
    folder = fetch(clerk("good"), tmp_path / "model")
    with CandidateProcess("first", LIMITS, [folder]) as process:
        process.ask("load", uri=str(folder))

        def kill(item: Item) -> None:
            asked.append(item.id)
            if len(asked) == 3:
                os.kill(process.pid, signal.SIGKILL)

        with pytest.raises(CandidateFailedError, match="killed by SIGKILL"):
            list(collect(process, pack, 64, store, kill))
    kept = store.read()
    assert list(kept) == [item.id for item in pack.items[:3]]
    with CandidateProcess("second", LIMITS, [folder]) as process:
        process.ask("load", uri=str(folder))
        rest = list(collect(process, pack, 64, store, lambda _: None))
        whole = list(
            collect(
                process, pack, 64, AnswerStore(tmp_path, "unknown", pack.digest, 64), lambda _: None
            )
        )
    assert rest[:3] == list(kept.values())
    assert [answered.text for answered in rest] == [answered.text for answered in whole]


def test_an_error_of_one_request_is_not_the_end(
    clerk: Callable[[str], str], tmp_path: Path
) -> None:
    model = fetch(clerk("good"), tmp_path / "model")
    with CandidateProcess("clerk", LIMITS, [model]) as process:
        process.ask("load", uri=str(model))
        with pytest.raises(ModelError, match="role 'wizard'"):
            process.ask("answer", messages=[{"role": "wizard", "content": "Hello"}], max_tokens=4)
        assert (
            process.ask(
                "answer", messages=[{"role": "user", "content": "What is 2 + 2?"}], max_tokens=16
            )["text"]
            == "2 + 2 equals 4."
        )
        folder = Path(f"/proc/{process.pid}/cwd").readlink()
        assert not list(folder.iterdir()) and folder != Path.cwd()
    assert not folder.exists()


def test_a_killed_evaluation_leaves_no_process_behind() -> None:
    """The evaluation is killed, so that it cannot say good-bye; its candidate ends by itself."""
    script = (
        "import sys, time\n"
        "from steps.evaluation.worker_process import CandidateProcess, Limits\n"
        "with CandidateProcess('clerk', Limits(600, 600)) as process:\n"
        "    print(process.pid, flush=True)\n"
        "    time.sleep(600)\n"
    )
    import subprocess
    import sys
    import time

    import psutil

    from steps.config.root import ROOT

    parent = subprocess.Popen(
        [sys.executable, "-c", script], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    assert parent.stdout is not None
    candidate = int(parent.stdout.readline())
    assert psutil.pid_exists(candidate)
    os.kill(candidate, signal.SIGSTOP)  # deaf to its socket, as in a long call
    parent.kill()
    parent.wait()
    with contextlib.suppress(ProcessLookupError):
        os.kill(candidate, signal.SIGCONT)

    def gone() -> bool:
        try:
            return bool(psutil.Process(candidate).status() == psutil.STATUS_ZOMBIE)
        except psutil.NoSuchProcess:
            return True

    deadline = time.monotonic() + 20
    while not gone() and time.monotonic() < deadline:
        time.sleep(0.2)
    assert gone()
