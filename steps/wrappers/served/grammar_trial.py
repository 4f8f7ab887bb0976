"""Tries a caller's grammar in a process of its own before the server compiles it, without a limit
on time or memory.
"""

import hashlib
import re
import weakref
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from functools import partial
from typing import Any

from .fork_safety import ForkSafe
from .grammar_process import FORKS, TRIAL_BYTES, TRIAL_TOKENS, WAIT_SECONDS, TrialProcess
from .grammar_turns import Turns, untried
from .grammars import Grammar, uncompilable

# processor time a grammar may take to compile, beyond what the empty object takes; every thread
# waits for it
COMPILE_SECONDS = 0.25
STEP_SECONDS = 0.1  # processor time its slowest token may take, beyond the same
WALK_SECONDS = 0.75  # processor time that all tokens of the trial may take, beyond the same
QUICK_SECONDS = 0.1  # the same of each, in the lane where others wait for no more than that
# What the engine says at a token of a grammar that is too large for it. Other failures there are
# left to the answers themselves: tokens that are drawn at random meet beginnings of characters
# which it does not take, and no model would have chosen.
TOO_LARGE = re.compile(
    r"lexer error|too many|too large|too big|row has \d+ items|limit", re.IGNORECASE
)
# for the trials before it: waiting callers hold threads that the server answers others with
QUEUE_SECONDS = 10.0
# callers of one kind of grammar that may wait where trials take long
MOST_WAITING = 2
NICE = 10  # of those trials, which must not slow answers down
VERDICTS = 1024  # grammars that are remembered, those that were asked for last


class Lane:
    """One process that tries grammars, one at a time.

    The process is started with the first grammar and stays; one that is killed is started anew.

    Args:
        start: the process.
        seconds: of processor time a trial may take to compile and to draw tokens.
        turns: who is next.
    """

    def __init__(
        self, start: Callable[[], TrialProcess], seconds: tuple[float, float], turns: Turns
    ) -> None:
        self._start, self._seconds, self._turns = start, seconds, turns
        self._abandoned: list[TrialProcess] = []  # a parent process's
        self.process: TrialProcess | None = None

    def attempt(self, grammar: Grammar) -> dict[str, Any] | None:
        """Try a grammar; None where it took more than it may.

        Raises:
            MlflowException: it could not be tried now, with status 503.
        """
        with self._turns.turn(grammar.kind):
            process = self._started()
            answer = process.ask([grammar.kind, grammar.text, *self._seconds], WAIT_SECONDS + 1)
            if answer is None or answer["full"]:
                process.end()
            if answer is None and process.timed_out:
                raise untried("the machine is too busy")
            return None if answer is None or "ended" in answer else answer

    def close(self) -> None:
        """End the process."""
        if self.process is not None and self.process.ours:
            self.process.end()

    def _started(self) -> TrialProcess:
        process = self.process
        if process is not None and not process.ours:
            self._abandoned.append(process)  # its pipes are the parent's to use
        elif process is not None and process.alive:
            return process
        elif process is not None:
            process.end()
        self.process = process = self._start()
        weakref.finalize(self, process.end)  # also runs when the interpreter exits
        return process


class GrammarTrial(ForkSafe):
    """Tries grammars, and remembers the verdicts.

    Each is tried in a quick lane first, where no grammar holds the others for long; one that needs
    more goes on to a lane of its like, which is niced and where few may wait.

    Args:
        tokenizer_json: gives the content of tokenizer.json, when a process is started.
        eos: ids of the tokens that end an answer.
    """

    def __init__(self, tokenizer_json: Callable[[], str], eos: Sequence[int]) -> None:
        super().__init__()

        def start(nice: int) -> TrialProcess:
            return TrialProcess(tokenizer_json(), eos, nice)

        self._verdicts: OrderedDict[bytes, str | None] = OrderedDict()
        self.quick = Lane(partial(start, 0), (QUICK_SECONDS,) * 2, Turns(QUEUE_SECONDS, None))
        # a little more than what is refused by its time, so that the reason can be told
        seconds = (1.2 * COMPILE_SECONDS, 1.2 * WALK_SECONDS)
        turns = Turns(QUEUE_SECONDS, MOST_WAITING if FORKS else None)
        self.thorough = Lane(partial(start, NICE if FORKS else 0), seconds, turns)

    def renew_lock(self) -> None:
        """Take a lock that no thread holds, with nothing being tried."""
        super().renew_lock()
        self._pending: dict[bytes, Future[str | None]] = {}

    def require(self, grammar: Grammar) -> None:
        """Refuse a grammar that does not compile, or would hold up the others.

        Raises:
            MlflowException: saying what is wrong with it, with status 400; or that it could not be
                tried now, with status 503.
        """
        problem = self._known_or_tried(grammar)
        if problem is not None:
            raise uncompilable(grammar, problem)

    def close(self) -> None:
        """End the processes."""
        self.quick.close()
        self.thorough.close()

    def _known_or_tried(self, grammar: Grammar) -> str | None:
        """The verdict on a grammar; who asks for one that is being tried waits for that trial."""
        key = hashlib.sha256(f"{grammar.kind}\n{grammar.text}".encode()).digest()
        with self.lock:
            if key in self._verdicts:
                self._verdicts.move_to_end(key)
                return self._verdicts[key]
            trial = self._pending.get(key)
            if trial is None:
                own: Future[str | None] = Future()
                self._pending[key] = own
        if trial is not None:
            return trial.result()
        try:
            own.set_result(self._verdict(grammar))
        except BaseException as error:
            own.set_exception(error)
            raise
        finally:
            with self.lock:
                self._pending.pop(key, None)
                if not own.exception():
                    self._verdicts[key] = own.result()
                while len(self._verdicts) > VERDICTS:
                    self._verdicts.popitem(last=False)
        return own.result()

    def _verdict(self, grammar: Grammar) -> str | None:
        # where a trial that is ended ends the process, the quick lane would cost more than it saves
        answer = self.quick.attempt(grammar) if FORKS else None
        if answer is None:
            answer = self.thorough.attempt(grammar)
        if answer is None:
            return (
                f"it needs more than {COMPILE_SECONDS} s to compile, {WALK_SECONDS} s for its first"
                f" {TRIAL_TOKENS} tokens, or {TRIAL_BYTES // 1024**2} MB; make it smaller"
            )
        if "error" in answer:
            return str(answer["error"])
        if TOO_LARGE.search(answer["failure"]):
            return str(answer["failure"])
        parts = ("compiling it", "one of its tokens", f"{TRIAL_TOKENS} of its tokens")
        for what, took, most in zip(
            parts, answer["took"], (COMPILE_SECONDS, STEP_SECONDS, WALK_SECONDS), strict=True
        ):
            if took > most:
                return f"{what} takes {took:.2f} s, and {most} s is the most; make it smaller"
        return None
