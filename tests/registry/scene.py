"""Logged models and reports, as the steps before this room leave them, made in a moment."""

import json
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from steps.config.root import Config
from steps.core import digest

MODEL_FILE = Path(__file__).with_name("chat_model.py")
NAME = "parrot"
GOOD = {
    "quality/score": 0.5,
    "speed/ttft_p50_s": 1.0,
    "speed/itl_p50_s": 0.1,
    "memory/peak_rss_bytes": 2e9,
    "size/bytes": 5e8,
}
FAST = {
    "quality/score": 0.48,
    "speed/ttft_p50_s": 0.2,
    "speed/itl_p50_s": 0.02,
    "memory/peak_rss_bytes": 6e8,
    "size/bytes": 1e8,
}


def signature() -> Any:
    """The chat columns, and a prompt."""
    from mlflow.models import ModelSignature
    from mlflow.types.llm import CHAT_MODEL_INPUT_SCHEMA
    from mlflow.types.schema import ColSpec, DataType, Schema

    columns = [
        ColSpec(type=column.type, name=column.name, required=False)  # type: ignore[arg-type]
        for column in CHAT_MODEL_INPUT_SCHEMA.inputs
    ]
    return ModelSignature(
        inputs=Schema([*columns, ColSpec(DataType.string, "prompt", required=False)])
    )


def log_model(variant: str, *, name: str = "parrot", fault: str | None = None) -> str:
    """Log a parrot under the active run, tagged as the log steps tag theirs. Returns its id."""
    import mlflow

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PARROT_BEHAVES", "1")
        info = mlflow.pyfunc.log_model(
            name=variant,
            python_model=str(MODEL_FILE),
            signature=signature(),
            input_example={"messages": [{"role": "user", "content": "hello"}]},
            model_config={"name": f"{name}-{variant}", "fault": fault},
            pip_requirements=["mlflow"],
        )
    folder = mlflow.artifacts.download_artifacts(info.model_uri)
    mlflow.MlflowClient().set_logged_model_tags(
        info.model_id,
        {
            "slm.variant": variant,
            "slm.fingerprint": f"sha256:{variant}",
            "slm.snapshot_revision": "abc",
            "slm.licence": "MIT",
            "slm.digest": digest.of_folder(Path(folder)),
        },
    )
    return str(info.model_id)


def judged(
    model_id: str,
    variant: str,
    metrics: dict[str, float],
    decision: str = "promote",
    role: str = "candidate",
) -> dict[str, Any]:
    """One candidate of a report."""
    import mlflow

    held = decision != "promote"
    return {
        "uri": f"models:/{model_id}",
        "model_id": model_id,
        "variant": variant,
        "digest": mlflow.MlflowClient().get_logged_model(model_id).tags["slm.digest"],
        "role": role,
        "status": "evaluated",
        "failure": None,
        "metrics": metrics,
        "quality": {"by_skill": {}, "items": []},
        "conformance": {
            "rows": [
                {"name": "n above 1", "passed": False, "limit": "one choice only", "detail": ""}
            ],
            "complete": True,
        },
        "verdict": {
            "decision": decision,
            "gates": [
                {
                    "name": "quality_floor",
                    "value": metrics["quality/score"],
                    "limit": 0.1,
                    "passed": not held,
                    "reason": "as it is",
                }
            ],
        },
    }


def log_report(
    candidates: list[dict[str, Any]],
    *,
    days_old: float = 0.0,
    name: str = NAME,
    gates: dict[str, Any] | None = None,
    items: int = 10,
    pack: str = "smoke",
) -> str:
    """Put a report on the active run, as ``evaluate`` does. Returns its URI."""
    import mlflow

    report = {
        "schema": "slm-promote/report/1",
        "created": (datetime.now(UTC) - timedelta(days=days_old)).isoformat(),
        "registered_name": name,
        "snapshot": {
            "digest": "sha256:0",
            "repo": "nobody/parrot",
            "revision": "abc",
            "licence": "MIT",
        },
        "incumbent": None,
        "seed": 0,
        "machine": {},
        "pack": {"name": pack, "version": "1", "digest": "sha256:1", "items": items},
        "policy": {"gates": gates or asdict(config().promotion.gates)},
        "candidates": candidates,
    }
    mlflow.log_text(json.dumps(report), "report.json")
    run = mlflow.active_run()
    assert run is not None
    uri = f"runs:/{run.info.run_id}/report.json"
    mlflow.set_tags({"slm.step": "evaluate", "slm.model": name, "slm.output": uri})
    return uri


@cache
def config(*overrides: str) -> Config:
    """The composed config of the parrot."""
    from steps.pipeline.compose import compose_config

    return compose_config(
        [
            "model=tiny_phi3",
            f"model.registered_name={NAME}",
            "promotion.retry_seconds=20",
            *overrides,
        ]
    )
