"""The process that compiles a caller's grammar and draws tokens from it, within limits."""

import contextlib
import inspect
import json
import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from typing import Any

from .grammar_matchers import new_matcher
from .grammar_turns import untried

TRIAL_BYTES = 256 * 1024**2  # memory a trial may take
# drawn at random from what the grammar allows: many a grammar compiles and fails at its first
# tokens
TRIAL_TOKENS = 48
WAIT_SECONDS = 20.0  # for the verdict
# whether each grammar is tried in a process of its own: elsewhere a fork of a process that has
# loaded the engine is not sure to work
FORKS = sys.platform == "linux"
START_SECONDS = 60.0  # for the process to load the tokenizer
# all that the process is told
PASSED_ON = ("PATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "SYSTEMROOT", "TMPDIR", "TEMP", "TMP")


def serve_trials() -> None:
    """Body of the process: a line of settings on stdin, then grammars; verdicts on stdout.

    Its source is handed to a new interpreter, so everything it needs is imported here. On Linux
    each grammar is tried in a fork of it, which has read the tokenizer already: one that is ended
    costs the next one nothing. The kernel ends what takes more processor time or time than it may;
    an allocation past the memory limit ends it as well. The process ends with its parent, when
    stdin does.
    """
    import json
    import os
    import random
    import signal
    import sys
    import time

    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)  # the library prints warnings
    os.dup2(null, 2)
    settings = json.loads(sys.stdin.readline())
    sys.path[:] = settings["path"]
    if sys.platform != "win32":
        os.nice(settings["nice"])
    from llguidance import LLTokenizer

    tokenizer = LLTokenizer(settings["tokenizer"], eos_token=settings["eos"])

    def attempt(kind: str, text: str, compiling: float, walking: float) -> dict[str, object]:
        """Compile a grammar and draw tokens from it; the kernel ends what takes longer."""
        end_after(compiling)
        begun = time.process_time()
        matcher = new_matcher(tokenizer, kind, text)
        if matcher.is_error():
            return {"error": matcher.get_error()[:4096]}
        compiled = time.process_time() - begun
        end_after(walking)
        slowest = walked = 0.0
        dice = random.Random(1)
        for _ in range(settings["tokens"]):
            begun = time.process_time()
            allowed = int.from_bytes(matcher.compute_bitmask(), "little")
            if allowed and not matcher.is_error():
                matcher.consume_token(drawn(allowed, dice))
            took = time.process_time() - begun
            slowest, walked = max(slowest, took), walked + took
            if matcher.is_stopped():  # also where it is in error
                break
        return {"took": [compiled, slowest, walked], "failure": matcher.get_error()[:4096]}

    def drawn(allowed: int, dice: random.Random) -> int:
        """A token of a mask: the first one from a random place on."""
        place = dice.randrange(allowed.bit_length())
        rest = allowed >> place
        return place + (rest & -rest).bit_length() - 1

    def end_after(seconds: float) -> None:
        if sys.platform != "win32":  # there the parent's clock alone ends it
            signal.setitimer(signal.ITIMER_PROF, seconds)

    def limit() -> None:
        if sys.platform == "win32":
            return
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        signal.alarm(settings["wait"])
        if sys.platform == "linux":
            resource.setrlimit(
                resource.RLIMIT_AS, (pages(0) + settings["bytes"], resource.RLIM_INFINITY)
            )

    def pages(field: int) -> int:
        if sys.platform != "linux":
            return 0
        with open("/proc/self/statm") as statm:  # noqa: PTH123
            return int(statm.read().split()[field]) * os.sysconf("SC_PAGE_SIZE")

    def tried(kind: str, text: str, compiling: float, walking: float) -> dict[str, object]:
        limit()
        try:
            verdict = attempt(kind, text, compiling, walking)
        except MemoryError:
            os._exit(1)
        except Exception as error:  # noqa: BLE001 - whatever the engine says of it is what the caller is told
            verdict = {"error": str(error)[:4096]}
        end_after(0)
        if sys.platform != "win32":
            signal.alarm(0)
        return verdict

    def tried_in_a_fork(*question: str | float) -> dict[str, object]:
        import ctypes

        reader, writer = os.pipe()
        ours = os.getpid()
        child = os.fork()
        if child == 0:
            try:
                ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
                if os.getppid() == ours:
                    os.write(writer, json.dumps(tried(*question)).encode())  # type: ignore[arg-type]
            finally:
                os._exit(0)
        os.close(writer)
        with os.fdopen(reader, "rb") as pipe:
            said = pipe.read()
        os.waitpid(child, 0)
        return dict(json.loads(said)) if said else {"ended": True}

    if sys.platform != "win32":
        signal.signal(signal.SIGPROF, signal.SIG_DFL)
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGPROF, signal.SIGALRM})
    ask = tried_in_a_fork if settings["forks"] else tried
    empty = ("json_schema", '{"type": "object"}')
    for _ in range(2):
        usual: list[float] = ask(*empty, 60.0, 60.0)["took"]  # type: ignore[assignment]
    resident = pages(1)
    print(json.dumps({"ready": True}), file=out, flush=True)
    for line in sys.stdin:
        kind, text, compiling, walking = json.loads(line)
        verdict = ask(kind, text, usual[0] + compiling, usual[2] + walking)
        if isinstance(verdict.get("took"), list):
            took: list[float] = verdict["took"]  # type: ignore[assignment]
            verdict["took"] = [own - common for own, common in zip(took, usual, strict=True)]
        # memory that the engine does not give back
        verdict["full"] = pages(1) > resident + settings["bytes"] // 4
        print(json.dumps(verdict), file=out, flush=True)


# read now: the file of a logged model may be gone later
SOURCE = (
    f"from typing import Any\n{inspect.getsource(new_matcher)}\n{inspect.getsource(serve_trials)}"
)


class TrialProcess:
    """The process that tries grammars.

    Args:
        tokenizer_json: content of tokenizer.json.
        eos: ids of the tokens that end an answer.
        nice: by how much others go first.
    """

    def __init__(self, tokenizer_json: str, eos: Sequence[int], nice: int) -> None:
        self.owner = os.getpid()
        self.timed_out = False
        try:
            environment = {key: os.environ[key] for key in PASSED_ON if key in os.environ}
            self.child = subprocess.Popen(
                [sys.executable, "-I", "-c", f"{SOURCE}\nserve_trials()"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
                encoding="utf-8",
                env=environment,
            )
        except OSError as error:
            raise untried(f"its process cannot be started: {error}") from error
        self._answers: queue.SimpleQueue[str] = queue.SimpleQueue()
        threading.Thread(target=self._read, name="slm-grammar-trial", daemon=True).start()
        settings: dict[str, Any] = {
            "path": sys.path,
            "tokenizer": tokenizer_json,
            "eos": list(eos),
            "tokens": TRIAL_TOKENS,
            "nice": nice,
            "forks": FORKS,
        }
        if (
            self.ask({**settings, "bytes": TRIAL_BYTES, "wait": int(WAIT_SECONDS)}, START_SECONDS)
            is None
        ):
            self.end()
            raise untried("its process did not start")

    @property
    def ours(self) -> bool:
        """Whether this process started it; a forked child holds a copy."""
        return self.owner == os.getpid()

    @property
    def alive(self) -> bool:
        """Whether it can be asked."""
        return self.child.poll() is None

    def ask(self, question: Any, seconds: float) -> dict[str, Any] | None:
        """Send one line and read one; None where the process ended or did not answer in time."""
        assert self.child.stdin is not None
        began = time.monotonic()
        try:
            self.child.stdin.write(json.dumps(question) + "\n")
            self.child.stdin.flush()
            line = self._answers.get(timeout=seconds)
        except (OSError, ValueError, queue.Empty):
            line = ""
        if not line:
            self.timed_out = time.monotonic() - began >= WAIT_SECONDS
            return None
        return dict(json.loads(line))

    def _read(self) -> None:
        assert self.child.stdout is not None
        for line in self.child.stdout:
            self._answers.put(line)
        self._answers.put("")

    def end(self) -> None:
        """Kill it; safe to call twice and in a forked child."""
        if not self.ours:
            return
        self.child.kill()
        self.child.wait()
        with contextlib.suppress(OSError):
            if self.child.stdin is not None:
                self.child.stdin.close()
