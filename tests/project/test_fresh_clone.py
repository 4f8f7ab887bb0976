"""The README's first command on a clone of the last commit, in this environment, with the embedded
model.

That `make install` makes the environment from the lock is `test_environment`'s to show.
"""

import json
import subprocess
from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient

from tests.conftest import ROOT, Shell

pytestmark = [pytest.mark.slow, pytest.mark.timeout(2400)]

ASK = """
import json, sys, mlflow
model = mlflow.pyfunc.load_model(sys.argv[1])
response = model.predict({"messages": [{"role": "user", "content": "What is the capital of France?"}], "max_tokens": 32})
print(json.dumps(response))
"""  # noqa: E501


def test_make_run_ends_with_a_champion_that_answers(shell: Shell, tmp_path: Path) -> None:
    clone = tmp_path / "clone"
    subprocess.run(["git", "clone", "-q", str(ROOT), str(clone)], check=True)
    (clone / ".venv").symlink_to(ROOT / ".venv")  # `test_lock` compares it with the lock
    for marker in (".run", ".dev"):
        # newer than the clone's lock: or make would run pip in an environment that others use
        (clone / ".venv" / marker).touch()
    done = shell("make", "run", cwd=clone, timeout=2300)
    printed = done.stdout + done.stderr
    assert done.returncode == 0, printed[-6000:]
    assert "make ui" in printed
    assert 'make ask Q="What is the capital of France?"' in printed
    uri = f"sqlite:///{clone}/mlflow.db"
    aliases = MlflowClient(uri, uri).get_registered_model("smollm2-135m-instruct").aliases
    assert {"transformers", "onnx", "champion", "challenger"} <= set(aliases)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    answers = {}
    for alias in ("champion", "transformers"):
        asked = shell(
            "python",
            "-c",
            ASK,
            f"models:/smollm2-135m-instruct@{alias}",
            cwd=elsewhere,
            MLFLOW_TRACKING_URI=uri,
        )
        assert asked.returncode == 0, asked.stderr[-3000:]
        (completion,) = json.loads(asked.stdout.splitlines()[-1])
        assert completion["model"] == "smollm2-135m-instruct"
        answers[alias] = completion["choices"][0]["message"]["content"]
    # a quantised champion of 135 million parameters may know less
    assert "Paris" in answers["transformers"]
    assert answers["champion"].strip()
