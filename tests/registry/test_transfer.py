"""One version from one store to another; on SQLite."""

import hashlib
import json
import logging
import os
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import mlflow
import pytest

from steps.core.errors import ConfigError, StepError
from steps.registry import archive as archives
from steps.registry.archive import check
from steps.registry.export_archive import export
from steps.registry.import_archive import import_
from steps.registry.result import RefusedError
from steps.registry.transfer import Transfer
from tests.registry import commands, scene
from tests.registry.commands import promote
from tests.registry.faults import FaultyClient, KilledError
from tests.registry.fixtures import Pair
from tests.registry.scene import elsewhere

# ruff: noqa: ARG001  (a fixture is asked for by name, also where only what it does counts)

QUESTION = {"messages": [{"role": "user", "content": "hello there"}]}


@pytest.fixture
def archive(pair: Pair, no_canary: list[str], tmp_path: Path) -> Path:
    """The champion, exported."""
    commands.register(pair.report_uri, scene.config())
    folder = tmp_path / "carried" / "champion"
    export(scene.config(f"target=models:/{scene.NAME}@champion", f"archive={folder}"))
    return folder


def take(folder: Path, *overrides: str) -> Transfer:
    with mlflow.start_run():
        return import_(scene.config(f"archive={folder}", *overrides))


def test_archive_holds_all_that_speaks_for_it(archive: Path) -> None:
    manifest = check(archive)
    paths = {each["path"] for each in manifest["files"]}
    assert {"model/MLmodel", "evidence/report.json", "card.md", "licence.txt"} <= paths
    assert not any("registered_model_meta" in path for path in paths)
    assert (archive / "licence.txt").read_text() == "MIT\n"
    assert "nobody/parrot" in (archive / "card.md").read_text()
    assert list(archive.parent.iterdir()) == [archive]


def test_imported_version_answers_the_same_and_can_be_promoted(
    archive: Path, migrated_database: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = mlflow.pyfunc.load_model(f"models:/{scene.NAME}@champion").predict(QUESTION)
    elsewhere(migrated_database, tmp_path, monkeypatch)
    done = take(archive)
    assert done.version == 1 and not done.already
    client = mlflow.MlflowClient()
    version = client.get_model_version(scene.NAME, "1")
    assert client.get_registered_model(scene.NAME).aliases == {}
    born = client.get_registered_model(f"{scene.NAME}.history").creation_timestamp
    # nobody else can give it a history
    assert client.get_registered_model(scene.NAME).tags["slm.history"] == str(born)
    assert version.tags["slm.digest"] == done.digest and version.tags[
        "slm.imported_from"
    ].startswith(f"{scene.NAME}/2 m-")
    assert mlflow.pyfunc.load_model(f"models:/{scene.NAME}/1").predict(QUESTION) == before
    promoted = promote(scene.config(f"target=models:/{scene.NAME}/1"))
    assert promoted.entry == 1 and promoted.rows[0].decision == "promote"
    assert client.get_registered_model(scene.NAME).aliases == {"champion": 1}


def test_importing_twice_adds_nothing(
    archive: Path, migrated_database: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere(migrated_database, tmp_path, monkeypatch)
    assert take(archive, "dry_run=true").version is None
    assert mlflow.MlflowClient().search_registered_models() == []
    take(archive)
    again = take(archive)
    assert again.already and again.version == 1
    assert len(mlflow.MlflowClient().search_model_versions(f"name='{scene.NAME}'")) == 1


def test_changed_byte_is_named_and_nothing_is_made(
    archive: Path, migrated_database: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere(migrated_database, tmp_path, monkeypatch)
    victim = archive / "model" / "MLmodel"
    victim.write_bytes(victim.read_bytes()[:-1] + b"!")
    with pytest.raises(RefusedError, match="model/MLmodel is not what was exported"):
        take(archive)
    assert mlflow.MlflowClient().search_registered_models() == []


def test_missing_added_linked_and_escaping_files_are_named(archive: Path) -> None:
    card = (archive / "card.md").read_text()
    (archive / "card.md").unlink()
    with pytest.raises(RefusedError, match=r"card\.md is missing"):
        check(archive)
    (archive / "card.md").symlink_to("/etc/hostname")
    with pytest.raises(RefusedError, match=r"card\.md is not in the manifest"):
        check(archive)
    (archive / "card.md").unlink()
    (archive / "card.md").write_text(card)
    (archive / "model" / "extra.pkl").write_text("x")
    with pytest.raises(RefusedError, match=r"model/extra\.pkl is not in the manifest"):
        check(archive)
    (archive / "model" / "extra.pkl").unlink()
    manifest = json.loads((archive / "manifest.json").read_text())
    manifest["files"].append({"path": "../outside", "size": 1, "sha256": "0" * 64})
    (archive / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(RefusedError, match="lies outside"):
        check(archive)


def test_bytes_that_change_on_the_way_make_no_version(
    archive: Path, migrated_database: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere(migrated_database, tmp_path, monkeypatch)
    real = mlflow.MlflowClient.log_model_artifacts

    def corrupt(
        self: mlflow.MlflowClient, model_id: str, local_dir: str, artifact_path: str | None = None
    ) -> None:
        real(self, model_id, local_dir, artifact_path)
        location = self.get_logged_model(model_id).artifact_location
        victim = Path(str(location).removeprefix("file://")) / "MLmodel"
        victim.write_bytes(victim.read_bytes() + b"\n")

    monkeypatch.setattr(mlflow.MlflowClient, "log_model_artifacts", corrupt)
    with pytest.raises(RefusedError, match="arrived, sha256:"):
        take(archive)
    assert mlflow.MlflowClient().search_registered_models() == []


def test_what_is_no_archive_is_refused(tmp_path: Path, pair: Pair, no_canary: list[str]) -> None:
    with pytest.raises(ConfigError, match=r"a folder that `mlflow run \. -e export` wrote"):
        take(tmp_path)
    with pytest.raises(ConfigError, match=r"archive=None: expected a folder"):
        export(scene.config(f"target=models:/{scene.NAME}/1"))
    commands.register(pair.report_uri, scene.config())
    with pytest.raises(ConfigError, match="a folder that does not exist yet"):
        export(scene.config(f"target=models:/{scene.NAME}/1", f"archive={tmp_path}"))


def test_import_killed_before_each_call_is_taken_up_by_the_next(
    archive: Path, migrated_database: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere(migrated_database, tmp_path, monkeypatch)
    client, at = mlflow.MlflowClient(), 0
    while True:
        at += 1
        registry = FaultyClient(at)
        killed = False
        with mlflow.start_run():
            try:
                import_(scene.config(f"archive={archive}"), registry=registry)
            except KilledError:
                killed = True
        if killed:
            take(archive)
        (version,) = client.search_model_versions(f"name='{scene.NAME}'")
        experiments = [each.experiment_id for each in client.search_experiments()]
        (model,) = client.search_logged_models(experiments)
        assert version.model_id in (model.model_id, None) and str(model.status) == "READY"
        assert f"models:/{scene.NAME}/{version.version}" in (version.description or "")
        assert "slm.verdict" not in version.tags and version.aliases == []
        if not killed:
            break
        client.delete_model_version(scene.NAME, version.version)
        client.delete_logged_model(model.model_id)
    assert at > 8


def test_logged_model_of_somebody_elses_experiment_is_not_adopted(
    archive: Path, migrated_database: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere(migrated_database, tmp_path, monkeypatch)
    client, seal = mlflow.MlflowClient(), check(archive)["seal"]
    own = mlflow.get_experiment_by_name("production")
    theirs = client.create_experiment("mallory", artifact_location=str(tmp_path / "mallory"))
    run_id = client.create_run(theirs).info.run_id
    assert own is not None
    tags = {"slm.archive": seal}
    planted = client.create_logged_model(
        theirs, name="onnx", source_run_id=run_id, tags=tags
    ).model_id
    pointing_out = client.create_logged_model(
        own.experiment_id, name="onnx", source_run_id=run_id, tags=tags
    ).model_id
    take(archive)
    version = client.get_model_version(scene.NAME, "1")
    used = version.tags["slm.model_id"]
    assert (
        used not in (planted, pointing_out)
        and client.get_logged_model(used).experiment_id == own.experiment_id
    )
    assert not list((tmp_path / "mallory").rglob("MLmodel"))


def test_manifest_with_another_name_is_refused(archive: Path) -> None:
    manifest = json.loads((archive / "manifest.json").read_text())
    (archive / "manifest.json").write_text(json.dumps({**manifest, "name": "somebody-elses"}))
    with pytest.raises(RefusedError, match="its name, tags or list differ"):
        check(archive)


def test_compiled_code_in_the_folder_is_left_behind(
    pair: Pair, no_canary: list[str], tmp_path: Path
) -> None:
    commands.register(pair.report_uri, scene.config())
    location = str(
        mlflow.MlflowClient().get_logged_model(pair.onnx).artifact_location
    ).removeprefix("file://")
    (Path(location) / "code" / "__pycache__").mkdir(parents=True)
    (Path(location) / "code" / "__pycache__" / "chat.pyc").write_bytes(b"compiled")
    export(scene.config(f"target=models:/{scene.NAME}@champion", f"archive={tmp_path}/out"))
    assert not list((tmp_path / "out").rglob("*.pyc"))


def again(folder: Path, to: Path, **changes: Any) -> Path:
    """The same archive with another report, as a later export of the version makes it."""
    shutil.copytree(folder, to)
    report = json.loads((to / "evidence" / "report.json").read_text())
    report["created"] = (datetime.now(UTC) + timedelta(days=changes.get("days", 0))).isoformat()
    report["pack"] |= {"name": "core", "items": changes.get("items", 500)}
    for candidate in report["candidates"]:
        candidate["verdict"]["decision"] = changes.get("decision", "promote")
    text = json.dumps(report)
    (to / "evidence" / "report.json").write_text(text)
    manifest = json.loads((to / "manifest.json").read_text())
    for file in manifest["files"]:
        if file["path"] == "evidence/report.json":
            file |= {
                "size": len(text.encode()),
                "sha256": hashlib.sha256(text.encode()).hexdigest(),
            }
    manifest["seal"] = archives.seal(manifest)
    (to / "manifest.json").write_text(json.dumps(manifest))
    return to


def evidence_tag() -> str:
    return str(scene.version_tags(1)["slm.evidence_digest"])


def digest_of(folder: Path) -> str:
    data = (folder / "evidence" / "report.json").read_bytes()
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def test_newer_evidence_about_the_same_bytes_is_taken_over(
    archive: Path, migrated_database: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A release that was retracted where it came from is not promoted by what was imported first;
    importing the first archive again does not bring its evidence back.
    """
    elsewhere(migrated_database, tmp_path, monkeypatch)
    take(archive)
    stronger = again(archive, tmp_path / "stronger")
    assert take(stronger).already and evidence_tag() == digest_of(stronger)
    uri = scene.version_tags(1)["slm.evaluation"]
    assert json.loads(mlflow.artifacts.load_text(uri))["pack"]["items"] == 500
    text = mlflow.MlflowClient().get_model_version(scene.NAME, "1").description
    assert uri.split("/")[1] in str(text)
    held = again(archive, tmp_path / "held", decision="hold")
    assert take(held).already and evidence_tag() == digest_of(held)
    for earlier in (archive, stronger, held):
        take(earlier)
        assert evidence_tag() == digest_of(held)
    with pytest.raises(RefusedError, match="its verdict is 'hold'"):
        promote(scene.config(f"target=models:/{scene.NAME}/1"))
    assert len(mlflow.MlflowClient().search_model_versions(f"name='{scene.NAME}'")) == 1


@pytest.mark.parametrize("changes", [{"items": 5}, {"days": -20}, {"days": -40}, {"days": 3}])
def test_weaker_older_and_future_evidence_replaces_none(
    archive: Path,
    migrated_database: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    changes: dict[str, int],
) -> None:
    elsewhere(migrated_database, tmp_path, monkeypatch)
    first = again(archive, tmp_path / "first")
    take(first)
    other = again(archive, tmp_path / "other", decision="hold", **changes)
    with caplog.at_level(logging.WARNING):
        take(other)
    assert evidence_tag() == digest_of(first)
    assert f"models:/{scene.NAME}/1 keeps its evidence; that of archive=" in caplog.text


def test_evidence_of_an_experiment_that_does_not_count_replaces_none(
    archive: Path,
    migrated_database: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    elsewhere(migrated_database, tmp_path, monkeypatch)
    take(archive)
    with caplog.at_level(logging.WARNING):
        take(again(archive, tmp_path / "other"), "promotion.evidence.experiments=[release]")
    assert evidence_tag() == digest_of(archive)
    assert "experiment 'production', which does not count" in caplog.text


@pytest.mark.parametrize(
    "path", ["model/__pycache__/chat_model.cpython-311.pyc", "model/sitecustomize.py"]
)
def test_file_that_is_added_after_the_check_is_not_sent(
    archive: Path,
    migrated_database: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    path: str,
) -> None:
    elsewhere(migrated_database, tmp_path, monkeypatch)
    checked = archives.check

    def then_add(*given: Any) -> Any:
        manifest = checked(*given)
        (archive / path).parent.mkdir(exist_ok=True)
        (archive / path).write_bytes(b"EVIL")
        return manifest

    monkeypatch.setattr(archives, "check", then_add)
    take(archive)
    got = Path(mlflow.artifacts.download_artifacts(f"models:/{scene.NAME}/1"))
    assert (got / "MLmodel").is_file() and not (got / Path(path).relative_to("model")).exists()


@pytest.mark.parametrize("kind", ["bytes", "link", "pipe"])
def test_file_that_is_changed_after_the_check_makes_nothing(
    archive: Path,
    migrated_database: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
) -> None:
    elsewhere(migrated_database, tmp_path, monkeypatch)
    checked = archives.check

    def then_change(*given: Any) -> Any:
        manifest = checked(*given)
        victim = archive / "model" / "chat_model.py"
        if kind == "bytes":
            victim.write_bytes(victim.read_bytes() + b"#")
        elif kind == "link":
            victim.rename(tmp_path / "mine.py")
            victim.symlink_to(tmp_path / "mine.py")
        else:
            victim.unlink()
            os.mkfifo(victim)
        return manifest

    monkeypatch.setattr(archives, "check", then_change)
    with pytest.raises((RefusedError, StepError), match=r"^archive=.*(not what was|could not be)"):
        take(archive)
    assert mlflow.MlflowClient().search_registered_models() == []
