"""Only what a logged model asks for is enough to serve it: no torch, no transformers, nothing of
this project (ADR 17 adds tokenizers, ADR 19 llguidance).
"""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.wrappers.subjects import Logged

ANSWER = """
import importlib.util, sys, mlflow
assert not any(importlib.util.find_spec(name) for name in ("torch", "transformers", "steps"))
model = mlflow.pyfunc.load_model(sys.argv[1])
messages = [{"role": "user", "content": "What is the capital of Germany?"}]
[answer] = model.predict({"messages": messages, "max_tokens": 12})
print(answer["choices"][0]["message"]["content"])
print(model.predict({"prompt": "One, two,", "max_tokens": 4})[0])
year = {"type": "regex", "regex": "[0-9]{4}"}
assert model.predict({"prompt": "In the year", "response_format": year})[0].isdigit()
"""


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_the_logged_requirements_alone_serve_it(
    logged: Logged, in_fresh_process: Callable[..., str], tmp_path: Path
) -> None:
    from mlflow import MlflowClient

    location = (
        MlflowClient(logged.tracking_uri)
        .get_logged_model(logged.uris["int4"].removeprefix("models:/"))
        .artifact_location
    )
    requirements = str(Path(location) / "requirements.txt")
    home = tmp_path / "environment"
    subprocess.run([sys.executable, "-m", "venv", str(home)], check=True)
    python = str(home / "bin" / "python")
    subprocess.run([python, "-m", "pip", "install", "-q", "-r", requirements], check=True)
    printed = in_fresh_process(ANSWER, logged.uris["int4"], python=python)
    assert "Berlin" in printed
