"""A version with made-up evidence and made-up traces, in a moment."""

import json
import random
import time
from typing import Any

import mlflow

from steps.config.root import Config
from steps.config.serve import ServeConfig
from steps.serving.answered import Answered, AnswerFigures
from steps.serving.served_version import ServedVersion
from steps.serving.traces import TraceWriter
from tests.registry import scene

PROCESSOR = "A processor"
FIRST_TOKEN, INTER_TOKEN = 0.1, 0.02  # seconds, of prompts of 50 tokens, in the evidence
QUESTIONS = {f"item-{number}": f"question {number}" for number in range(20)}
ANSWERS = {item: f"the answer to {question}" for item, question in QUESTIONS.items()}


def series() -> dict[str, Any]:
    """Raw timings of two prompt lengths and of bursts."""

    def stream(first: float, scale: float) -> dict[str, Any]:
        return {
            "ttft_s": first * scale,
            "itl_s": [INTER_TOKEN] * 23,
            "total_s": first * scale + 23 * INTER_TOKEN * scale,
            "tokens": 24,
            "decode_tokens_per_second": 50.0,
            "streamed": True,
        }

    return {
        "speed": {
            "streams": {
                "32": [stream(FIRST_TOKEN, scale) for scale in (0.9, 1.0, 1.2)],
                "384": [stream(5 * FIRST_TOKEN, scale) for scale in (0.9, 1.0, 1.2)],
            },
            "bursts": {"1": [50.0, 51.0, 49.0], "4": [100.0, 100.0, 100.0]},
        }
    }


def items(answers: dict[str, str] | None = None) -> list[dict[str, Any]]:
    """Answers to the pack; every fifth declines, and of these every second was asked to."""
    return [
        {
            "id": item,
            "tags": ["words"],
            "answer": "I can't help with that." if number % 5 == 0 else answer,
            "score": 1.0,
            "checks": [
                {"type": "refusal" if number % 10 == 0 else "equals", "passed": True, "detail": ""}
            ],
            "finish_reason": "stop",
            "completion_tokens": 10,
            "latency_s": 0.5,
        }
        for number, (item, answer) in enumerate((answers or ANSWERS).items())
    ]


def candidate(model_id: str, variant: str, figures: dict[str, float]) -> dict[str, Any]:
    """One candidate with answers and timings."""
    counted = {"speed/prompt_tokens": 50.0, "speed/prompt_tokens_long": 450.0}
    made = scene.candidate(model_id, variant, {**figures, **counted})
    made["quality"] = {"by_skill": {}, "items": items(), "concurrent_items": 8}
    row = {"name": "response_format json_object", "passed": True, "limit": None, "detail": ""}
    made["conformance"]["rows"].append(row)
    made["series"] = series()
    return made


def log_report(candidates: list[dict[str, Any]]) -> str:
    """A report with questions and a machine, on a run of its own. Returns its URI."""
    with mlflow.start_run() as run:
        uri = scene.log_report(candidates, items=len(QUESTIONS))
        report = mlflow.artifacts.load_dict(uri)
        report["machine"] = {"processor": PROCESSOR}
        report["pack"]["questions"] = {
            item: [{"role": "user", "content": question}] for item, question in QUESTIONS.items()
        }
        mlflow.log_text(json.dumps(report), "report.json")
        assert run.info.run_id in uri
    return uri


def answers(
    count: int, *, slower: float = 1.0, seed: int = 0, **changes: Any
) -> list[AnswerFigures]:
    """Requests as the evidence makes one expect them, or ``slower`` times as long."""
    chance = random.Random(seed)
    made = []
    for _ in range(count):
        noise = chance.lognormvariate(0, 0.1)
        figures = {
            "outcome": "ok",
            "seconds": 0.4,
            "first_token_s": FIRST_TOKEN * slower * noise,
            "inter_token_s": INTER_TOKEN * slower * noise,
            "prompt_tokens": 50,
            "tokens": 10,
            "finish_reason": "stop",
            "refused": chance.random() < 0.1,
        }
        made.append(AnswerFigures(**{**figures, **changes}))
    return made


def write(made: list[AnswerFigures], number: int = 2, hours_ago: float = 1.0) -> None:
    """Write traces of a version of the parrot, as its server does."""
    client = mlflow.MlflowClient()
    version = client.get_model_version(scene.NAME, str(number))
    model_id = str(version.source).removeprefix("models:/")
    digest = version.tags["slm.digest"]
    served = ServedVersion(scene.NAME, number, "onnx", digest, 0, model_id)
    config = ServeConfig(trace_sample=1.0)
    counted: list[str] = []
    writer = TraceWriter(config, PROCESSOR, counted.append)
    writer.start()
    started = time.time() - 3600 * hours_ago
    for place, figures in enumerate(made):
        writer.offer(Answered(served, "champion", "answered", started + place, figures))
    writer.close(60)
    assert counted == ["written"] * len(made)


def config(*overrides: str) -> Config:
    """The parrot's config, content with few requests."""
    return scene.config("monitor.min_requests=10", "monitor.resamples=200", *overrides)
