"""Tries a caller's grammar in a process of its own before the engine compiles it, with the GIL held
and without a limit.
"""

import hashlib
import re
import weakref
from collections import OrderedDict
from pathlib import Path

from .fork_safety import ForkSafe
from .grammar_process import (
    TRIAL_BYTES,
    TRIAL_SECONDS,
    TRIAL_TOKENS,
    WAIT_SECONDS,
    TrialProcess,
    untried,
)
from .grammars import Grammar, uncompilable

# processor time a grammar may take to compile, beyond what the empty object takes; every thread
# waits for it
COMPILE_SECONDS = 0.25
STEP_SECONDS = 0.1  # processor time its slowest token may take, beyond the same
WALK_SECONDS = 0.75  # processor time that all tokens of the trial may take, beyond the same
# What the engine says at a token of a grammar that is too large for it. Other failures there are
# left to the answers themselves: tokens that are drawn at random meet beginnings of characters
# which it does not take, and no model would have chosen.
TOO_LARGE = re.compile(
    r"lexer error|too many|too large|too big|row has \d+ items|limit", re.IGNORECASE
)
# for the trials before it: waiting callers hold threads that the server answers others with
QUEUE_SECONDS = 10.0
VERDICTS = 1024  # grammars that are remembered


class GrammarTrial(ForkSafe):
    """Tries grammars, one at a time, and remembers the verdicts.

    The process is started with the first grammar and stays; one that is killed is started anew.

    Args:
        folder: the served ONNX folder.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._source = folder
        self._verdicts: OrderedDict[bytes, str | None] = OrderedDict()
        self._abandoned: list[TrialProcess] = []  # a parent process's
        self.process: TrialProcess | None = None

    def require(self, grammar: Grammar) -> None:
        """Refuse a grammar that does not compile, or would hold up the others.

        Raises:
            MlflowException: saying what is wrong with it, with status 400; or that it could not be
                tried now, with status 503.
        """
        key = hashlib.sha256(f"{grammar.kind}\n{grammar.text}".encode()).digest()
        if key not in self._verdicts:
            if not self.lock.acquire(timeout=QUEUE_SECONDS):
                raise untried("other grammars are being tried")
            try:
                if key not in self._verdicts:
                    self._verdicts[key] = self._verdict(grammar)
                    while len(self._verdicts) > VERDICTS:
                        self._verdicts.popitem(last=False)
            finally:
                self.lock.release()
        problem = self._verdicts.get(key)
        if problem is not None:
            raise uncompilable(grammar, problem)

    def close(self) -> None:
        """End the process."""
        if self.process is not None and self.process.ours:
            self.process.end()

    def _verdict(self, grammar: Grammar) -> str | None:
        process = self._started()
        answer = process.ask([grammar.kind, grammar.text], WAIT_SECONDS + 1)
        if answer is None:
            process.end()
            if process.timed_out:
                raise untried("the machine is too busy")
            return (
                f"it needs more than {TRIAL_SECONDS} s or {TRIAL_BYTES // 1024**2} MB; make it"
                " smaller"
            )
        if answer["full"]:
            process.end()
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

    def _started(self) -> TrialProcess:
        process = self.process
        if process is not None and not process.ours:
            self._abandoned.append(process)  # its pipes are the parent's to use
        elif process is not None and process.alive:
            return process
        elif process is not None:
            process.end()
        self.process = process = TrialProcess(self._source)
        weakref.finalize(self, process.end)  # also runs when the interpreter exits
        return process
