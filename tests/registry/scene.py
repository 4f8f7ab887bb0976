"""Logged models and reports, as the steps before this room leave them, made in a moment."""

import json
import shutil
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

import mlflow
import pytest

from steps.config.root import Config
from steps.core import digest
from steps.core.artifact_places import Places
from steps.pipeline import experiments
from steps.registry.alias_store import AliasStore
from steps.registry.client import RegistryClient
from steps.registry.journal import Journal

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


def candidate(
    model_id: str,
    variant: str,
    metrics: dict[str, float],
    decision: str = "promote",
    role: str = "candidate",
) -> dict[str, Any]:
    """One candidate of a report."""
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
    machine: dict[str, Any] | None = None,
) -> str:
    """Put a report on the active run, as ``evaluate`` does. Returns its URI."""
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
        "machine": machine or {},
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


def report_by_a_run(candidates: list[dict[str, Any]], **given: Any) -> str:
    """Put a report on a run of its own. Returns its URI."""
    with mlflow.start_run():
        return log_report(candidates, **given)


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


def aliases() -> dict[str, int]:
    """The parrot's aliases, as the server has them."""
    found = mlflow.MlflowClient().get_registered_model(NAME).aliases
    return {alias: int(version) for alias, version in found.items()}


def history(name: str = NAME) -> Journal:
    """The journal of a registered model."""
    return AliasStore(RegistryClient(20), name).read()


def places() -> Places:
    """Where files are read from, by the default policy."""
    return experiments.places((), mlflow.MlflowClient())


def numbers(name: str = NAME) -> list[int]:
    """Numbers of a registered model's versions."""
    return sorted(
        int(each.version) for each in mlflow.MlflowClient().search_model_versions(f"name='{name}'")
    )


def report_in(
    experiment: str, candidates: list[dict[str, Any]], tmp_path: Path, **given: Any
) -> str:
    """A report in an experiment of its own, as a user makes one who may edit no other."""
    found = mlflow.get_experiment_by_name(experiment)
    place = (
        found.experiment_id
        if found
        else mlflow.create_experiment(experiment, artifact_location=str(tmp_path / experiment))
    )
    with mlflow.start_run(experiment_id=place):
        return log_report(candidates, **given)


def version_tags(number: int) -> dict[str, str]:
    """Tags of a version of the parrot."""
    found: dict[str, str] = mlflow.MlflowClient().get_model_version(NAME, str(number)).tags
    return found


def key_pair(folder: Path, name: str) -> tuple[Path, Path]:
    """PEM files of an Ed25519 key, private and public."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import (
        Encoding,
        NoEncryption,
        PrivateFormat,
        PublicFormat,
    )

    key = Ed25519PrivateKey.generate()
    private, public = folder / f"{name}.key.pem", folder / f"{name}.pub.pem"
    private.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    public.write_bytes(
        key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    )
    return private, public


def set_candidate(number: int) -> None:
    """As a person does in the UI."""
    mlflow.MlflowClient().set_registered_model_alias(NAME, "candidate", str(number))


def version_of(fault: str | None) -> tuple[str, str]:
    """URI and digest of a version that has this fault."""
    with mlflow.start_run():
        model_id = log_model("onnx", fault=fault)
    client = mlflow.MlflowClient()
    client.create_registered_model("canary")
    version = client.create_model_version("canary", f"models:/{model_id}", model_id=model_id)
    return f"models:/canary/{version.version}", client.get_logged_model(model_id).tags["slm.digest"]


def elsewhere(migrated_database: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From here on this process talks to another store."""
    place = tmp_path / "elsewhere"
    place.mkdir()
    shutil.copy(migrated_database, place / "mlflow.db")
    mlflow.set_tracking_uri(f"sqlite:///{place}/mlflow.db")
    mlflow.set_registry_uri(f"sqlite:///{place}/mlflow.db")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{place}/mlflow.db")
    mlflow.set_experiment(
        experiment_id=mlflow.create_experiment(
            "production", artifact_location=str(place / "artifacts")
        )
    )
