"""The process that compiles a caller's grammar and draws tokens from it, within limits."""

import contextlib
import inspect
import json
import os
import queue
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import TEMPORARILY_UNAVAILABLE

from .blank_model import write_blank_model

TRIAL_SECONDS = 1  # processor time after which a trial is killed
TRIAL_BYTES = 256 * 1024**2  # memory a trial may take
# drawn at random from what the grammar allows: many a grammar compiles and fails at its first
# tokens
TRIAL_TOKENS = 48
WAIT_SECONDS = 20.0  # for the verdict
START_SECONDS = 60.0  # for the process to load the tokenizer
# all that the process is told
PASSED_ON = ("PATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "SYSTEMROOT", "TMPDIR", "TEMP", "TMP")


def serve_trials() -> None:
    """Body of the process: a line of settings on stdin, then grammars; verdicts on stdout.

    Its source is handed to a new interpreter, so everything it needs is imported here. The kernel
    ends it where a grammar takes more processor time or time than it may; an allocation past the
    memory limit ends it as well. It ends with its parent, when stdin does.
    """
    import json
    import os
    import shutil
    import sys
    import time

    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)  # the engine prints warnings
    os.dup2(null, 2)
    settings = json.loads(sys.stdin.readline())
    sys.path[:] = settings["path"]
    import onnxruntime_genai as og

    og.disable_telemetry_events()
    model = og.Model(settings["folder"])

    def attempt(kind: str, text: str) -> tuple[list[float], str]:
        begun = time.process_time()
        parameters = og.GeneratorParams(model)
        parameters.set_search_options(
            max_length=4 + settings["tokens"],
            do_sample=True,
            random_seed=1,
            top_k=0,
            top_p=1.0,
            temperature=1.0,
        )
        parameters.set_guidance(kind, text)
        generator = og.Generator(model, parameters)
        compiled = time.process_time() - begun
        slowest = walked = 0.0
        failure = ""
        try:
            generator.append_tokens([1])
            for _ in range(settings["tokens"]):
                begun = time.process_time()
                generator.generate_next_token()
                took = time.process_time() - begun
                slowest, walked = max(slowest, took), walked + took
                if generator.is_done():
                    break
        except RuntimeError as error:
            failure = str(error)[:4096]
        return [compiled, slowest, walked], failure

    def limit() -> None:
        if sys.platform == "win32":
            return  # the parent's clock alone ends it
        import resource
        import signal

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        signal.alarm(settings["wait"])
        seconds = int(time.process_time()) + 1 + settings["seconds"]
        resource.setrlimit(resource.RLIMIT_CPU, (seconds, resource.RLIM_INFINITY))
        if sys.platform == "linux":
            resource.setrlimit(
                resource.RLIMIT_AS, (pages(0) + settings["bytes"], resource.RLIM_INFINITY)
            )

    def pages(field: int) -> int:
        if sys.platform != "linux":
            return 0
        with open("/proc/self/statm") as statm:  # noqa: PTH123
            return int(statm.read().split()[field]) * os.sysconf("SC_PAGE_SIZE")

    for _ in range(2):  # the first one reads the tokenizer
        usual, _ = attempt("json_schema", '{"type": "object"}')
    resident = pages(1)
    print(json.dumps({"ready": True}), file=out, flush=True)
    for line in sys.stdin:
        kind, text = json.loads(line)
        limit()
        try:
            took, failure = attempt(kind, text)
            verdict: dict[str, object] = {
                "took": [own - common for own, common in zip(took, usual, strict=True)],
                "failure": failure,
            }
        except MemoryError:
            os._exit(1)
        except Exception as error:  # noqa: BLE001 - whatever the engine says of it is what the caller is told
            verdict = {"error": str(error)[:4096]}
        if sys.platform != "win32":
            import signal

            signal.alarm(0)
        # memory that the engine does not give back
        full = pages(1) > resident + settings["bytes"] // 4
        print(json.dumps({**verdict, "full": full}), file=out, flush=True)
    # the parent is gone, perhaps by a signal that let it clean up nothing
    shutil.rmtree(settings["folder"], ignore_errors=True)


SOURCE = inspect.getsource(serve_trials)  # read now: the file of a logged model may be gone later


class TrialProcess:
    """The process that tries grammars, and the folder it reads."""

    def __init__(self, source: Path) -> None:
        self.owner = os.getpid()
        self.timed_out = False
        self.folder = Path(tempfile.mkdtemp(prefix="grammar-trial-"))
        try:
            write_blank_model(source, self.folder)
            environment = {key: os.environ[key] for key in PASSED_ON if key in os.environ}
            self.child = subprocess.Popen(
                [sys.executable, "-I", "-c", f"{SOURCE}\nserve_trials()"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
                encoding="utf-8",
                env={**environment, "ORT_DISABLE_TELEMETRY": "1", "OMP_NUM_THREADS": "1"},
            )
        except OSError as error:
            shutil.rmtree(self.folder, ignore_errors=True)
            raise untried(f"its process cannot be started: {error}") from error
        self._answers: queue.SimpleQueue[str] = queue.SimpleQueue()
        threading.Thread(target=self._read, name="slm-grammar-trial", daemon=True).start()
        settings: dict[str, Any] = {
            "path": sys.path,
            "folder": str(self.folder),
            "tokens": TRIAL_TOKENS,
            "seconds": TRIAL_SECONDS,
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
        """Kill it and remove its folder; safe to call twice and in a forked child."""
        if not self.ours:
            return
        self.child.kill()
        self.child.wait()
        with contextlib.suppress(OSError):
            if self.child.stdin is not None:
                self.child.stdin.close()
        shutil.rmtree(self.folder, ignore_errors=True)


def untried(reason: str) -> MlflowException:
    """Build the error of a grammar that could not be tried now."""
    return MlflowException(
        f"response_format cannot be tried now, as {reason}; try again later",
        error_code=TEMPORARILY_UNAVAILABLE,
    )
