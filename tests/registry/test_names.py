"""A name with spaces, upper case, `=` and letters of another script goes through every command; one
with quotes through none.
"""

import shutil
from pathlib import Path

import mlflow
import pytest

from steps.core.errors import ConfigError
from steps.pipeline.artifact_lookup import finished_runs
from steps.pipeline.compose import compose_config
from steps.registry import candidate_evaluation, eligibility
from steps.registry.client import RegistryClient
from steps.registry.export_archive import export
from steps.registry.import_archive import import_
from steps.registry.table import show_history
from tests.core.test_commands import overrides_of
from tests.registry import commands, scene
from tests.registry.commands import promote, rollback
from tests.registry.fixtures import Pair
from tests.registry.scene import elsewhere

# ruff: noqa: ARG001  (a fixture is asked for by name, also where only what it does counts)

NAME = "My Parrot+β v1=2_x"


def test_accepted_name_goes_through_every_command(
    pair: Pair,
    no_canary: list[str],
    migrated_database: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with mlflow.start_run():
        judged = [
            scene.candidate(pair.transformers, "transformers", scene.GOOD),
            scene.candidate(pair.onnx, "onnx", scene.FAST),
        ]
        uri = scene.log_report(judged, name=NAME)
    mine = scene.config(f"model.registered_name='{NAME}'")
    assert commands.register(uri, mine).entry == 1
    assert len(finished_runs({"slm.model": NAME}, mine)) == 1
    assert promote(scene.config(f"target='models:/{NAME}/1'")).entry == 2
    assert rollback(scene.config(f"target='models:/{NAME}@champion'")).entry == 3
    assert (
        len(show_history(scene.config(f"target='models:/{NAME}'"), as_json=False)["entries"]) == 3
    )
    version = RegistryClient(5).version(NAME, 2)
    assert version is not None
    composed = compose_config(
        candidate_evaluation.evaluation_overrides(RegistryClient(5), (), version, "champion")
    )
    assert (composed.model.registered_name, composed.evaluate.candidates) == (NAME, [version.uri])
    command = eligibility.evaluate_command(RegistryClient(5), version, "champion")
    composed = compose_config(overrides_of(command))
    assert (composed.model.registered_name, composed.evaluate.candidates) == (NAME, [version.uri])
    mlflow.MlflowClient().set_registered_model_alias(NAME, "candidate", "1")
    (verdict,) = commands.poll_once(mine, RegistryClient(5), lambda *_: None)
    assert verdict.uri == f"models:/{NAME}/1" and verdict.words.startswith(
        "held: @champion (version 2) is better"
    )
    export(scene.config(f"target='models:/{NAME}@champion'", f"archive={tmp_path}/out"))
    elsewhere(migrated_database, tmp_path, monkeypatch)
    with mlflow.start_run():
        assert import_(scene.config(f"archive={tmp_path}/out")).name == NAME
    shutil.rmtree(tmp_path / "out")


@pytest.mark.parametrize("name", ["it's", 'say "hi"', "a:b", "parrot.history", "a%20b"])
def test_refused_name_is_refused_by_every_command_before_any_call(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreachable(*_: object, **__: object) -> None:
        raise AssertionError("the server was asked")

    monkeypatch.setattr(RegistryClient, "attempt", unreachable)
    quoted = name.replace("'", "\\'")
    registry = RegistryClient(1, client=object())  # type: ignore[arg-type]
    target = scene.config(f"target='models:/{quoted}'")
    alias = scene.config(f"target='models:/{quoted}@champion'", f"archive={tmp_path}/out")
    calls = (
        lambda: scene.config(f"model.registered_name='{quoted}'"),
        lambda: promote(target, registry=registry),
        lambda: rollback(alias, registry=registry),
        lambda: show_history(target, as_json=False, registry=registry),
        lambda: export(alias, registry=registry),
        lambda: commands.poll_once(target, registry, lambda *_: None),
    )
    for call in calls:
        with pytest.raises(ConfigError, match="expected"):
            call()
