"""An interrupted quality pass continues from the answers it has."""

import contextlib
import json
import os
import signal
import sys
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
    assert AnswerStore(tmp_path, "sha256:a", PACK_DIGEST, 64, concurrent_items=8).read() == {}
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
    """The process is killed after three answers, while others are asked; a second one is asked only
    for the rest, and the answers are those of one run.
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
            collect(process, pack, 64, store, kill, concurrent_items=4)
    kept = store.read()
    assert list(kept) == asked[:3]
    with CandidateProcess("second", LIMITS, [folder]) as process:
        process.ask("load", uri=str(folder))
        rest = collect(process, pack, 64, store, lambda _: None, concurrent_items=4)
        whole = collect(
            process, pack, 64, AnswerStore(tmp_path, "unknown", pack.digest, 64), lambda _: None
        )
    assert [answered for answered in rest if answered.item in kept] == [
        kept[item.id] for item in pack.items if item.id in kept
    ]
    assert [answered.text for answered in rest] == [answered.text for answered in whole]


@pytest.fixture
def ask_all(clerk: Callable[[str], str], tmp_path: Path) -> Callable[[str, int], list[Answer]]:
    """Answers of the hand-written model in a mood to the tiny pack, so many items at once."""
    pack = packs.load(str(PACK))

    def ask(mood: str, concurrent_items: int) -> list[Answer]:
        folder = fetch(clerk(mood), tmp_path / mood)
        store = AnswerStore(tmp_path, "sha256:a", pack.digest, 64)
        with CandidateProcess(mood, LIMITS, [folder]) as process:
            process.ask("load", uri=str(folder))
            return collect(
                process, pack, 64, store, lambda _: None, concurrent_items=concurrent_items
            )

    return ask


def test_items_are_asked_at_once(ask_all: Callable[[str, int], list[Answer]]) -> None:
    """The model answers nobody until eight have asked."""
    assert {answered.error for answered in ask_all("sociable", 8)} == {None}


def test_the_next_item_does_not_wait_for_the_slowest(
    ask_all: Callable[[str, int], list[Answer]], tmp_path: Path
) -> None:
    """Two at once: the first item is answered when all others are, which therefore come one after
    the other beside it. Each is kept when it comes, and all are in the pack's order.
    """
    answers = ask_all("late", 2)
    names = [item.id for item in packs.load(str(PACK)).items]
    assert [answered.item for answered in answers] == names
    assert {answered.error for answered in answers} == {None}
    (file,) = tmp_path.glob("*.jsonl")
    kept = [json.loads(line)["item"] for line in file.read_text().splitlines() if line]
    assert set(kept) == set(names) and kept.index("france") >= 6


def test_an_error_is_its_own_item_s(ask_all: Callable[[str, int], list[Answer]]) -> None:
    errors = {answered.item: answered.error for answered in ask_all("cross", 4)}
    assert errors.pop("week") == "RuntimeError: not that one"
    assert set(errors.values()) == {None}


@pytest.mark.parametrize(("mood", "code"), [("crash", 3), ("quits", 7)])
def test_a_process_that_ends_in_any_thread_has_crashed(
    ask_all: Callable[[str, int], list[Answer]], mood: str, code: int
) -> None:
    with pytest.raises(CandidateFailedError, match=f"crashed: exit code {code} during"):
        ask_all(mood, 4)


def test_a_request_that_hangs_among_others_is_not_waited_for_for_ever(
    clerk: Callable[[str], str], tmp_path: Path
) -> None:
    """The others are answered and kept, and then the limit of one request is over."""
    pack = packs.load(str(PACK))
    folder = fetch(clerk("hang"), tmp_path / "model")
    store = AnswerStore(tmp_path, "sha256:a", pack.digest, 64)
    with CandidateProcess("hang", Limits(120, 5), [folder]) as process:
        process.ask("load", requests=12, uri=str(folder))
        with pytest.raises(CandidateFailedError, match="hung: 'answer_next'"):
            collect(process, pack, 64, store, lambda _: None, concurrent_items=4)
        assert not process.alive
    assert len(store.read()) == 7


def test_an_answer_to_what_was_not_asked_ends_the_process(tmp_path: Path) -> None:
    pack = packs.load(str(PACK))
    said = {"text": "hi", "finish_reason": "stop", "completion_tokens": 1, "latency_s": 0.1}
    line = json.dumps({"result": {"number": 8, "answer": said, "error": None}}).encode() + b"\n"
    code = "import socket, sys; s = socket.socket(fileno=int(sys.argv[1]));"
    code += f" s.makefile('rb').readline(); s.sendall({line!r}); s.recv(1)"
    process = CandidateProcess(
        "odd", LIMITS, command=lambda number: [sys.executable, "-I", "-c", code, str(number)]
    )
    with process, pytest.raises(CandidateFailedError, match="item 8 was not asked"):
        collect(process, pack, 64, AnswerStore(tmp_path, "unknown", "", 64), lambda _: None)
    assert not process.alive


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
