"""Child processes of the steps, forked from one that has imported torch already.

``python -m tests.families.warm`` reads a line of JSON a child from stdin: ``{"module", "arguments",
"environment", "cwd", "output"}``, runs ``python -m module arguments…`` in a fork, and answers with
its exit code. A build of a tiny model takes three seconds that way, not sixteen, most of which are
imports; ``tests/snapshots`` starts real children.
"""

import json
import os
import runpy
import subprocess
import sys
import traceback
from collections.abc import Mapping
from pathlib import Path

from steps.snapshots.child import ROOT, ChildError


class WarmChildren:
    """Takes the place of `steps.snapshots.child.run`.

    Args:
        folder: for the children's output.
    """

    def __init__(self, folder: Path) -> None:
        self._output = folder / "output"
        kept = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")}
        environment = {
            **kept,
            "HF_HUB_OFFLINE": "1",
            "TOKENIZERS_PARALLELISM": "false",
            "ORT_DISABLE_TELEMETRY": "1",
        }
        self._process = subprocess.Popen(
            [sys.executable, "-m", __name__],
            cwd=ROOT,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def run(
        self,
        module: str,
        *arguments: str | Path,
        environment: Mapping[str, str] | None = None,
        cwd: Path = ROOT,
    ) -> str:
        """Run a module; see `steps.snapshots.child.run`."""
        assert self._process.stdin and self._process.stdout
        words = [str(word) for word in arguments]
        order = {
            "module": module,
            "arguments": words,
            "environment": dict(environment or {}),
            "cwd": str(cwd),
            "output": str(self._output),
        }
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        code = int(self._process.stdout.readline())
        output = self._output.read_text("utf-8", "replace")
        if code:
            raise ChildError([sys.executable, "-m", module, *words], code, output)
        return output

    def close(self) -> None:
        """End the process that forks."""
        self._process.communicate(timeout=30)


def _run(order: dict[str, object]) -> int:
    """In the fork: run the module and give its exit code."""
    with open(str(order["output"]), "w", encoding="utf-8") as output:  # noqa: PTH123 - its descriptor replaces both streams
        os.dup2(output.fileno(), 1)
        os.dup2(output.fileno(), 2)
    os.environ.update(order["environment"])  # type: ignore[call-overload]
    os.chdir(str(order["cwd"]))
    sys.argv = [str(order["module"]), *order["arguments"]]  # type: ignore[misc]
    try:
        runpy.run_module(str(order["module"]), run_name="__main__", alter_sys=True)
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:  # noqa: BLE001 - as the interpreter ends a program
        traceback.print_exc()
        return 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
    return 0


def main() -> None:
    """Import what is heavy, then fork a child for every line."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8", buffering=1)
    os.dup2(2, 1)  # what an import prints is not an answer
    import onnx  # noqa: F401
    import torch  # noqa: F401
    from onnxruntime_genai.models import builder  # noqa: F401
    from transformers import (
        AutoConfig,  # noqa: F401
        AutoModelForCausalLM,  # noqa: F401
        AutoTokenizer,  # noqa: F401
        PreTrainedTokenizerFast,  # noqa: F401
    )

    for line in sys.stdin:
        order = json.loads(line)
        child = os.fork()
        if child == 0:
            os._exit(_run(order))
        answers.write(f"{os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])}\n")


if __name__ == "__main__":
    main()
