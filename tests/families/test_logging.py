"""Both variants of every family are logged and answer alike in a fresh process."""

import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from steps.config.generation import GenerationConfig
from steps.config.onnx import ServingConfig
from steps.wrappers.capabilities import capabilities_of
from steps.wrappers.log_onnx import log_onnx
from steps.wrappers.log_transformers import log_transformers
from tests.families.asking import asked, prompts, right, said, talked
from tests.families.fresh import FreshProcess
from tests.families.subject import Subject, rows
from tests.wrappers.subjects import NAME

pytestmark = pytest.mark.slow
VARIANTS = ("onnx", "transformers")
COMMON: dict[str, Any] = {"name": NAME, "generation": GenerationConfig(), "tags": {}}


@dataclass
class Logs:
    """A tracking store of the session, and a process a variant that reads from it."""

    folder: Path
    tracking_uri: str
    experiment: str = ""
    readers: dict[str, FreshProcess] = field(default_factory=dict)

    def reader(self, variant: str) -> FreshProcess:
        """The process that reads one variant: that of the ONNX models never sees torch."""
        if variant not in self.readers:
            place = self.folder / f"elsewhere-{variant}"
            place.mkdir()
            self.readers[variant] = FreshProcess(place, self.tracking_uri)
        return self.readers[variant]


@pytest.fixture(scope="session")
def logs(migrated_database: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Logs]:
    """Where models are logged."""
    import mlflow

    folder = tmp_path_factory.mktemp("logs")
    shutil.copy(migrated_database, folder / "mlflow.db")
    made, before = Logs(folder, f"sqlite:///{folder / 'mlflow.db'}"), mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(made.tracking_uri)
    made.experiment = mlflow.create_experiment(
        "families", artifact_location=str(folder / "artifacts")
    )
    mlflow.set_tracking_uri(before)
    yield made
    for reader in made.readers.values():
        reader.close()


@pytest.mark.parametrize("subject", rows(), indirect=True)
def test_log_both(subject: Subject, logs: Logs) -> None:
    """Logged, loaded elsewhere, and asked: the answers are `generate`'s."""
    import mlflow

    uris: dict[str, str] = {}
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(logs.tracking_uri)
    try:
        with mlflow.start_run(experiment_id=logs.experiment):
            capabilities = capabilities_of(subject.onnx)
            uris["onnx"] = log_onnx(
                subject.onnx,
                artifact_key="onnx-model",
                serving=ServingConfig(),
                metadata=capabilities,
                **COMMON,
            )
            capabilities = capabilities_of(subject.checkpoint)
            uris["transformers"] = log_transformers(
                subject.checkpoint, metadata=capabilities, **COMMON
            )
    finally:
        mlflow.set_tracking_uri(before)
    given = prompts(seed=6, count=6)
    conversations = [[{"role": "user", "content": prompt}] for prompt in given[:3]]
    expected = [
        subject.reference.answer(subject.reference.prompt_ids(prompt), 8)[0] for prompt in given
    ]
    turns = [right(subject, messages, 8) for messages in conversations]
    for variant in VARIANTS:
        answers = logs.reader(variant).ask(
            uris[variant],
            [
                *(asked(prompt, 8) for prompt in given),
                *(talked(messages, 8) for messages in conversations),
            ],
        )
        assert "error" not in answers, (variant, answers["error"])
        assert answers["answers"][: len(given)] == expected, variant
        assert [said(answer) for answer in answers["answers"][len(given) :]] == turns, variant
        assert answers["imported"] == ([] if variant == "onnx" else ["torch", "transformers"]), (
            variant
        )
