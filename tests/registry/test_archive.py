"""Archives that somebody made or changed by hand: each is refused in one line, and nothing is made
of it.
"""

import json
import logging
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlflow
import pytest

from steps.core import digest
from steps.core.errors import ConfigError, StepError
from steps.core.files import remove_tree
from steps.registry import archive, import_archive, signing
from steps.registry.model_version import Version
from steps.registry.result import RefusedError
from steps.registry.signing import PASSWORD_ENV
from tests.registry import scene

# ruff: noqa: ARG001  (a fixture is asked for by name, also where only what it does counts)


def seal(folder: Path, **changes: Any) -> None:
    """Write a manifest as whoever may write into the folder can: about the files as they are, with
    these fields changed.
    """
    paths = sorted(
        path
        for path in folder.rglob("*")
        if path.is_file() and path.name not in (archive.MANIFEST, archive.SIGNATURE)
    )
    files = [
        {
            "path": str(each.relative_to(folder)),
            "size": each.stat().st_size,
            "sha256": digest.sha256_of(each),
        }
        for each in paths
    ]
    manifest = {
        "schema": archive.SCHEMA,
        "name": "parrot",
        "version": 2,
        "model_id": "m-1",
        "digest": digest.of_folder(folder / "model"),
        "tags": {"slm.variant": "onnx", "slm.licence": "MIT"},
        "evidence": "runs:/1/report.json",
        "command": None,
        "files": files,
        **changes,
    }
    (folder / archive.MANIFEST).write_text(json.dumps({**manifest, "seal": archive.seal(manifest)}))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A small archive in good order."""
    made = tmp_path / "archive"
    (made / "model").mkdir(parents=True)
    (made / "evidence").mkdir()
    (made / "model" / "MLmodel").write_text("flavors: {}\n")
    (made / "evidence" / "report.json").write_text("{}")
    (made / "card.md").write_text("a card\n")
    seal(made)
    return made


def key_pair(tmp_path: Path, name: str, password: str | None = None) -> tuple[Path, Path]:
    """PEM files of a private key and of its public part."""
    from cryptography.hazmat.primitives import serialization as forms
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    lock = forms.BestAvailableEncryption(password.encode()) if password else forms.NoEncryption()
    private, public = tmp_path / f"{name}.pem", tmp_path / f"{name}.pub"
    private.write_bytes(key.private_bytes(forms.Encoding.PEM, forms.PrivateFormat.PKCS8, lock))
    public.write_bytes(
        key.public_key().public_bytes(forms.Encoding.PEM, forms.PublicFormat.SubjectPublicKeyInfo)
    )
    return private, public


def test_good_archive_is_accepted(folder: Path) -> None:
    assert archive.check(folder)["name"] == "parrot"


FORGERIES = [
    ({"name": "parrot.history"}, "kept for the history of 'parrot'"),
    ({"name": "parrot.Approvals"}, "kept for the approvals of 'parrot'"),
    ({"name": "it's"}, "expected letters and digits"),
    ({"tags": {"slm.record": "{}"}}, "sets the tag 'slm.record', which an import does not accept"),
    ({"tags": {"slm.verdict": "promote"}}, "sets the tag 'slm.verdict'"),
    ({"tags": {"slm.candidate": "promoted"}}, "sets the tag 'slm.candidate'"),
    ({"tags": {"slm.approval.1": "{}"}}, r"sets the tag 'slm\.approval\.1'"),
    ({"tags": {"slm.archive.signer": "sha256:0"}}, r"sets the tag 'slm\.archive\.signer'"),
    ({"tags": {"slm.model_id": "m-2"}}, r"sets the tag 'slm\.model_id'"),
    ({"tags": {"mlflow.user": "root"}}, r"sets the tag 'mlflow\.user'"),
    ({"tags": {"slm.digest": "sha256:" + "0" * 64}}, r"its tag slm\.digest says other bytes"),
    ({"tags": {"slm.licence": "x" * 5001}}, r"tags\.slm\.licence.*is too long"),
    ({"tags": ["slm.record"]}, "tags: .* is not of type 'object'"),
    ({"name": 7}, "name: 7 is not of type 'string'"),
    ({"digest": "sha256:0"}, "digest: 'sha256:0' does not match"),
    ({"files": []}, "files: .* should be non-empty"),
    ({"schema": "slm-promote/archive/9"}, "an archive of the schema slm-promote/archive/1, not"),
]


@pytest.mark.parametrize(("changes", "why"), FORGERIES)
def test_forged_manifest_is_refused(folder: Path, changes: dict[str, Any], why: str) -> None:
    seal(folder, **changes)
    with pytest.raises((RefusedError, ConfigError), match=why) as refused:
        archive.check(folder)
    assert len(str(refused.value).splitlines()) == 1


PATHS = [
    ("/etc/passwd", "lies outside"),
    ("model/../../x", "lies outside"),
    ("model\\x", "lies outside"),
    ("model//x", "not a plain relative path"),
    ("./model/x", "not a plain relative path"),
    ("model/a\nb", "not a plain relative path"),
    ("model/" + "a/" * 40 + "x", "not a plain relative path"),
    ("model/code/__pycache__/chat.cpython-311.pyc", "the model's digest does not cover"),
    ("model/registered_model_meta", "the model's digest does not cover"),
    ("steps/promote.py", "is neither in model/"),
    ("model/MLmodel", "twice"),
]


@pytest.mark.parametrize(("path", "why"), PATHS)
def test_paths_that_no_archive_has_are_refused(folder: Path, path: str, why: str) -> None:
    listed = json.loads((folder / archive.MANIFEST).read_text())["files"]
    seal(folder, files=[*listed, {"path": path, "size": 0, "sha256": "0" * 64}])
    with pytest.raises(RefusedError, match=why):
        archive.check(folder)


def _pipe(folder: Path) -> None:
    os.mkfifo(folder / "model" / "pipe")


def _linked_folder(folder: Path) -> None:
    (folder / "model" / "more").symlink_to("/etc", target_is_directory=True)


def _linked_manifest(folder: Path) -> None:
    (folder / archive.MANIFEST).rename(folder.parent / "m")
    (folder / archive.MANIFEST).symlink_to(folder.parent / "m")


def _many(folder: Path) -> None:
    for number in range(30):
        (folder / "model" / str(number)).touch()


def _deep(folder: Path) -> None:
    (folder / archive.MANIFEST).write_text("[" * 200_000)


def _large(folder: Path) -> None:
    (folder / archive.MANIFEST).write_text(" " * 2_000)


def _no_report(folder: Path) -> None:
    shutil.rmtree(folder / "evidence")
    seal(folder)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (_pipe, "a device, a socket or a pipe"),
        (_linked_folder, "model/more is not in the manifest as a link"),
        (_linked_manifest, "is a link or a special file"),
        (_many, "more than 20 files"),
        (_deep, "a folder that `mlflow run . -e export` wrote"),
        (_large, "more than 1000 bytes"),
        (_no_report, r"evidence/report\.json is missing"),
    ],
)
def test_odd_folders_are_refused(
    folder: Path, monkeypatch: pytest.MonkeyPatch, change: Callable[[Path], None], why: str
) -> None:
    if change is not _deep:
        monkeypatch.setattr(archive, "LARGEST_MANIFEST", 1000)
        monkeypatch.setattr(archive, "MOST_FILES", 20)
    change(folder)
    with pytest.raises((RefusedError, ConfigError), match=why):
        archive.check(folder)


def test_a_file_is_not_an_archive(folder: Path, tmp_path: Path, tracking: str) -> None:
    whole = Path(shutil.make_archive(str(tmp_path / "whole"), "zip", folder))
    cut = tmp_path / "cut.zip"
    cut.write_bytes(whole.read_bytes()[:50])
    for each in (whole, cut, tmp_path / "nowhere"):
        with pytest.raises(ConfigError, match=r"a folder that `mlflow run \. -e export` wrote"):
            import_archive.import_(scene.config(f"archive={each}"))


def test_forged_journal_makes_nothing(folder: Path, tracking: str) -> None:
    record = {
        "id": "1",
        "kind": "promote",
        "moves": [["champion", 1, 2]],
        "actor": "rosa",
        "reason": "forged",
    }
    seal(
        folder,
        name="parrot.history",
        tags={"slm.record": json.dumps(record), "slm.settled": "true"},
    )
    with (
        mlflow.start_run(),
        pytest.raises((RefusedError, ConfigError), match="kept for the history"),
    ):
        import_archive.import_(scene.config(f"archive={folder}"))
    assert mlflow.MlflowClient().search_registered_models() == []


def test_required_signer(folder: Path, tmp_path: Path, tracking: str) -> None:
    private, public = key_pair(tmp_path, "release")
    _, other = key_pair(tmp_path, "other")
    with pytest.raises(
        RefusedError, match=r"it is not signed, as promotion\.require_signer=release\.pub requires"
    ):
        import_archive.import_(
            scene.config(f"archive={folder}", f"promotion.require_signer={public}")
        )
    signing.sign(folder, signing.check_private_key(str(private)))
    moved = folder.rename(tmp_path / "elsewhere")
    planned = import_archive.import_(
        scene.config(f"archive={moved}", f"promotion.require_signer={public}", "dry_run=true")
    )
    assert planned.version is None and planned.files == 3
    assert signing.verify(moved, public).signer == signing.fingerprint(public)
    with pytest.raises(
        RefusedError, match=r"does not verify with promotion\.require_signer=other\.pub"
    ):
        import_archive.import_(
            scene.config(f"archive={moved}", f"promotion.require_signer={other}")
        )
    (moved / "model" / "MLmodel").write_text("flavors: {python_function: {}}\n")
    seal(moved)  # in good order, but not what was signed
    with pytest.raises(
        RefusedError, match=r"does not verify .*files differ from those that were signed"
    ):
        import_archive.import_(
            scene.config(f"archive={moved}", f"promotion.require_signer={public}")
        )
    (moved / archive.SIGNATURE).write_text("{}")
    with pytest.raises(RefusedError, match="does not verify"):
        signing.verify(moved, public)


def test_keys_that_cannot_be_used_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    private, public = key_pair(tmp_path, "locked", password="open sesame")
    with pytest.raises(ConfigError, match=f"for an encrypted key, export {PASSWORD_ENV}"):
        signing.check_private_key(str(private))
    monkeypatch.setenv(PASSWORD_ENV, "open sesame")
    assert signing.check_private_key(str(private)) == private
    with pytest.raises(ConfigError, match=r"signing_key='nowhere\.pem': expected a file"):
        signing.check_private_key("nowhere.pem")
    with pytest.raises(
        ConfigError, match=r"promotion\.require_signer=.*: expected the public part"
    ):
        signing.check_public_key(str(private))
    monkeypatch.setitem(sys.modules, "model_signing.verifying", None)
    with pytest.raises(
        StepError, match=r"need the package model-signing.*pip install model-signing"
    ):
        signing.check_public_key(str(public))


def test_evidence_that_nobody_signed_is_imported_with_a_warning(
    folder: Path, tracking: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    made = Version("parrot", 1, {}, (), "", None, "", 0)
    monkeypatch.setattr("steps.registry.import_archive.receive", lambda *_: made)
    with caplog.at_level(logging.WARNING):
        assert (
            import_archive.import_(scene.config(f"archive={folder}", "dry_run=true")).version
            is None
        )
        assert "no signature is required" not in caplog.text
        assert import_archive.import_(scene.config(f"archive={folder}")).version == 1
    assert (
        "no signature is required, so its evidence counts as whoever made it wrote it; set"
        " promotion.require_signer" in caplog.text
    )


def test_full_disk_is_said_in_one_line(
    folder: Path, tracking: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import errno

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("steps.registry.import_archive.receive", full)
    with pytest.raises(
        StepError,
        match=(
            r"^archive=.* could not be imported: No space left on device; mend that and run it"
            r" again$"
        ),
    ):
        import_archive.import_(scene.config(f"archive={folder}"))


def test_archive_that_is_changed_after_its_signature_was_verified_is_refused(
    folder: Path, tmp_path: Path, tracking: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    private, public = key_pair(tmp_path, "release")
    signing.sign(folder, private)
    verify = signing.verify

    def then_change(*arguments: Any) -> Any:
        signed = verify(*arguments)
        (folder / "evidence" / "report.json").write_text('{"forged": 1}')
        seal(folder)
        return signed

    monkeypatch.setattr(signing, "verify", then_change)
    given = (f"archive={folder}", f"promotion.require_signer={public}")
    with pytest.raises(RefusedError, match=r"manifest\.json is not the one that was signed"):
        import_archive.import_(scene.config(*given))


def test_folders_in_folders_are_refused(folder: Path) -> None:
    at = os.open(folder / "model", os.O_RDONLY)
    for _ in range(1500):
        os.mkdir("a", dir_fd=at)
        inner = os.open("a", os.O_RDONLY, dir_fd=at)
        os.close(at)
        at = inner
    os.close(at)
    with pytest.raises(RefusedError, match="more than 32 levels"):
        archive.read(folder)
    remove_tree(folder)  # pytest's own removal calls itself for each level
