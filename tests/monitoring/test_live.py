"""A real server writes traces, and the entry point reads them and asks it the recorded prompts."""

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import mlflow
import pytest

from steps.core import digest
from tests.conftest import ROOT, clean_environment
from tests.monitoring import scene
from tests.serving.servers import NAME, Serving, serving

QUESTIONS = {f"item-{number}": f"What is {number} plus one?" for number in range(10)}


def register(home: Path) -> None:
    """Version 1 of the embedded model, as champion."""
    from steps.config.generation import GenerationConfig
    from steps.config.onnx import ServingConfig
    from steps.wrappers.log_onnx import log_onnx
    from tests.wrappers.subjects import folders_of

    place = mlflow.create_experiment("served", artifact_location=str(home / "artifacts"))
    mlflow.set_experiment(experiment_id=place)
    with mlflow.start_run():
        model = log_onnx(
            folders_of("smollm2_135m").shipped(),
            name=NAME,
            generation=GenerationConfig(),
            metadata={},
            artifact_key="onnx-model",
            serving=ServingConfig(),
            tags={"slm.variant": "onnx"},
        )
    client = mlflow.MlflowClient()
    client.create_registered_model(NAME)
    found = digest.of_folder(Path(mlflow.artifacts.download_artifacts(model)))
    tags = {"slm.variant": "onnx", "slm.digest": found}
    client.create_model_version(NAME, model, tags=tags, model_id=model.split("/")[-1])
    client.set_registered_model_alias(NAME, "champion", "1")


def answered(server: Serving, question: str) -> tuple[dict[str, Any], float]:
    began = time.monotonic()
    said = server.chat(question, temperature=0, max_tokens=12).json()
    return said, time.monotonic() - began


def report(server: Serving) -> str:
    """A report with this server's own answers and times. Returns its URI."""
    items = []
    for item, question in QUESTIONS.items():
        said, _ = answered(server, question)
        items.append(
            {
                "id": item,
                "tags": ["sums"],
                "answer": said["choices"][0]["message"]["content"],
                "score": 1.0,
                "checks": [],
                "finish_reason": said["choices"][0]["finish_reason"],
                "completion_tokens": said["usage"]["completion_tokens"],
                "latency_s": 0.5,
            }
        )
    version = mlflow.MlflowClient().get_model_version(NAME, "1")
    candidate = {
        "uri": f"models:/{NAME}/1",
        "model_id": str(version.source).removeprefix("models:/"),
        "variant": "onnx",
        "digest": version.tags["slm.digest"],
        "status": "evaluated",
        "metrics": {"quality/score": 0.5, "speed/prompt_tokens": 40.0},
        "quality": {"items": items},
        "verdict": {"decision": "promote"},
        # as slow as this machine may ever be while other tests run
        "series": {"speed": {"streams": {"32": [{**stream(), "ttft_s": 5.0}]}, "bursts": {}}},
    }
    from steps.evaluation import machine

    text = {
        "schema": "slm-promote/report/1",
        "created": "2026-11-20T12:00:00+00:00",
        "registered_name": NAME,
        "machine": machine.describe(),
        "pack": {
            "name": "sums",
            "items": len(items),
            "questions": {
                item: [{"role": "user", "content": words}] for item, words in QUESTIONS.items()
            },
        },
        "candidates": [candidate],
    }
    with mlflow.start_run() as run:
        uri = f"runs:/{run.info.run_id}/report.json"
        mlflow.log_text(json.dumps(text), "report.json")
        mlflow.set_tags({"slm.step": "evaluate", "slm.model": NAME, "slm.output": uri})
    return uri


def stream() -> dict[str, Any]:
    return {"itl_s": [1.0] * 11, "total_s": 16.0, "tokens": 12, "decode_tokens_per_second": 1.0}


@pytest.mark.slow
def test_a_served_version_is_monitored(tracking: str, tmp_path: Path) -> None:
    register(tmp_path)
    with serving(tmp_path, tracking, "serve.trace_sample=1") as server:
        uri = report(server)
        for number in range(14):
            answered(server, f"Tell me of the number {number}, please.")
        until = time.monotonic() + 30
        while server.metric("slm_traces_total", outcome="written") < 24:
            assert time.monotonic() < until, server.said()[-2000:]
            time.sleep(0.2)
        done = subprocess.run(
            [
                sys.executable,
                "-m",
                "steps.monitor",
                f"target=models:/{NAME}",
                f"monitor.endpoint={server.url}",
                "monitor.min_requests=10",
                f"store.path={tmp_path / 'store'}",
                f"hydra.run.dir={tmp_path / 'outputs'}",
            ],
            cwd=ROOT,
            env=clean_environment(MLFLOW_TRACKING_URI=tracking, MLFLOW_EXPERIMENT_NAME="served"),
            capture_output=True,
            text=True,
            timeout=300,
        )
        time.sleep(2)
        # the recorded prompts that monitor asked are not traffic
        assert server.metric("slm_traces_total", outcome="written") == 24
    assert done.returncode == 0, done.stderr[-3000:]
    print(done.stdout)
    (run,) = mlflow.search_runs(filter_string="tags.`slm.step` = 'monitor'", output_format="list")
    found = mlflow.artifacts.load_dict(f"runs:/{run.info.run_id}/monitor.json")
    assert (found["requests"], found["evidence"]["uri"]) == (24, uri)
    states = {figure["name"]: figure["state"] for figure in found["figures"]}
    assert states["time_to_first_token"] == states["inter_token"] == "within"
    assert states["same_answers"] == "within"
    assert found["recorded"]["processor"] == found["evidence"]["processor"] != ""
    assert [one["equal"] for one in found["recorded"]["answers"]] == [True] * 8
    assert run.data.metrics["monitor/requests"] == 24
    assert scene.PROCESSOR not in found["processors"] and len(found["processors"]) == 1
    shutil.rmtree(tmp_path / "store", ignore_errors=True)
