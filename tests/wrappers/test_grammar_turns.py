"""Callers take turns at trying grammars: those of one kind do not keep the others waiting."""

import threading
import time

import pytest
from mlflow.exceptions import MlflowException

from steps.wrappers.served.grammar_turns import Turns


class Callers:
    """Threads that wait for turns one after the other, and in which order they had them."""

    def __init__(self, turns: Turns) -> None:
        self.turns, self.came = turns, list[str]()
        self._threads: list[threading.Thread] = []

    def line_up(self, *kinds: str) -> None:
        for kind in kinds:
            waiting = self.turns.waiting
            thread = threading.Thread(target=self._come, args=(kind,), daemon=True)
            thread.start()
            self._threads.append(thread)
            deadline = time.monotonic() + 30
            while self.turns.waiting == waiting:
                assert time.monotonic() < deadline
                time.sleep(0.001)

    def _come(self, kind: str) -> None:
        with self.turns.turn(kind):
            self.came.append(kind)

    def all_came(self) -> list[str]:
        for thread in self._threads:
            thread.join(30)
        return self.came


def test_kinds_take_turns_and_each_keeps_its_order() -> None:
    turns = Turns(60.0, None)
    callers = Callers(turns)
    with turns.turn("lark"):
        callers.line_up("lark", "lark", "lark", "lark", "regex", "regex", "schema")
    assert callers.all_came() == ["lark", "regex", "schema", "lark", "regex", "lark", "lark"]
    with turns.turn("lark"):  # free again
        assert turns.waiting == 0


def test_a_kind_of_which_many_wait_leaves_room_for_the_others() -> None:
    turns = Turns(60.0, 2)
    callers = Callers(turns)
    with turns.turn("lark"):
        callers.line_up("lark", "lark")
        with (
            pytest.raises(MlflowException, match="other grammars are being tried") as caught,
            turns.turn("lark"),
        ):
            pytest.fail("two at a time")
        callers.line_up("regex")
    assert caught.value.get_http_status_code() == 503
    assert callers.all_came() == ["lark", "regex", "lark"]


def test_who_waited_too_long_is_told_to_come_again_and_leaves_no_trace() -> None:
    turns = Turns(0.01, None)
    with turns.turn("lark"):
        with pytest.raises(MlflowException, match="try again later") as caught, turns.turn("lark"):
            pytest.fail("two at a time")
        assert caught.value.get_http_status_code() == 503
        assert turns.waiting == 0
    with turns.turn("regex"):
        assert turns.waiting == 0


def test_a_forked_process_finds_nobody_waiting() -> None:
    turns = Turns(0.01, 0)
    with turns.turn("lark"):
        turns.renew_lock()  # what a child sees after a fork
        with turns.turn("regex"):
            assert turns.waiting == 0
