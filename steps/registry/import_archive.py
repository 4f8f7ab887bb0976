"""Import an exported version: each step first looks for what an earlier attempt left."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from steps.config.root import Config
from steps.core import tags
from steps.core.redaction import redact
from steps.registry import archive, card, signing, versions
from steps.registry import evidence as evidence_module
from steps.registry.alias_store import AliasStore
from steps.registry.archive import REPORT
from steps.registry.client import RegistryClient
from steps.registry.evidence import Evidence
from steps.registry.imported_evidence import SIGNER_TAG, active_run, keep, renew, report_text
from steps.registry.imported_model import ARCHIVE_TAG, fill, logged_model, private_copy
from steps.registry.model_version import Version
from steps.registry.result import RefusedError
from steps.registry.transfer import Transfer, folder_of, one_line

log = logging.getLogger(__name__)


def import_(config: Config, *, registry: RegistryClient | None = None) -> Transfer:
    """Take the version in the folder ``archive`` into this tracking server, under the active run.
    No alias is set: that is ``promote``'s.

    Every byte is checked against the manifest before anything is sent, and what arrived is fetched
    again and checked before a version is made of it. The same archive again changes nothing;
    another archive of the same bytes gives them its evidence where that weighs more. With
    ``promotion.require_signer``, the key's holder must have signed it.

    Raises:
        ConfigError: ``archive`` is not given or is not an archive, or ``promotion.require_signer``
            is not a key.
        RefusedError: a file is missing, too many, or not what the manifest says, here or on
            arrival; the manifest asks for a name or a tag that an import does not write; or the
            required signature is missing or by another key.
        StepError: the disk is full or cannot be read.
    """
    folder = folder_of(config)
    required = config.promotion.require_signer
    key = signing.check_public_key(required) if required else None
    with one_line(f"archive={folder} could not be imported"):
        return _import(folder, key, config, registry)


def _import(
    folder: Path, key: Path | None, config: Config, registry: RegistryClient | None
) -> Transfer:
    # before the signature: it says what is wrong with a folder that was never an archive, and reads
    # no large file
    archive.read(folder)
    signature = signing.verify(folder, key) if key else None
    signer = signature.signer if signature else None
    manifest = archive.check(folder, signature.manifest_sha256 if signature else None)
    name = str(manifest["name"])
    registry = registry or RegistryClient(config.promotion.retry_seconds)
    same = [
        version
        for version in registry.versions(name)
        if version.tags.get(tags.DIGEST) == manifest["digest"]
    ]
    there = same[0] if same else None
    listed = next(file["sha256"] for file in manifest["files"] if file["path"] == REPORT)
    evidence_digest = f"sha256:{listed}"
    size, count = sum(file["size"] for file in manifest["files"]), len(manifest["files"])
    done = Transfer(
        name,
        there.number if there else None,
        manifest["digest"],
        count,
        size,
        folder.name,
        there is not None,
        config.dry_run,
    )
    if config.dry_run:
        return done
    for version in same:
        # an earlier import may have been ended before it came to that
        describe(folder, manifest, registry, version)
    others = [
        version
        for version in same
        if version.tags.get(tags.EVIDENCE_DIGEST) != evidence_digest
        and version.tags.get(ARCHIVE_TAG) != manifest["seal"]  # else this report was there before
    ]
    if same and not others:
        return done
    if signer is None:
        log.warning(
            "archive=%s: no signature is required, so its evidence counts as whoever made it wrote"
            " it; set promotion.require_signer to the PEM file of the key that signs releases, or"
            " let only evaluations of models:/%s in promotion.evidence.experiments count",
            redact(str(folder)),
            name,
        )
    if same:
        renew(folder, manifest, registry, others, config.promotion, signer)
        return done
    version = receive(folder, manifest, registry, signer)
    return replace(done, version=version.number)


def receive(
    folder: Path, manifest: Mapping[str, Any], registry: RegistryClient, signer: str | None = None
) -> Version:
    """Make a logged model and a version of an archive that was checked; of the active run, where
    its evidence will lie.

    Args:
        folder: the archive.
        manifest: what :func:`steps.registry.archive.check` returned.
        registry: the tracking server it goes to.
        signer: fingerprint of the key that signed it, where that was required.

    Raises:
        RefusedError: the evidence is about other bytes, or other bytes arrived than were sent.
    """
    with private_copy(folder, manifest) as model_folder:
        return _receive(folder, model_folder, manifest, registry, signer)


def _receive(
    folder: Path,
    model_folder: Path,
    manifest: Mapping[str, Any],
    registry: RegistryClient,
    signer: str | None,
) -> Version:
    run = active_run()
    report, candidate = keep(folder, manifest, registry, run)
    origin = f"{manifest['name']}/{manifest.get('version')} {manifest.get('model_id')}"
    said = archive.carried(manifest["tags"])
    if said.get(tags.VARIANT, candidate.variant) != candidate.variant:
        words = (
            f"its tag {tags.VARIANT} is {said[tags.VARIANT]!r}, its evidence is about"
            f" {candidate.variant!r}"
        )
        raise RefusedError(f"archive={folder}: {words}; export the version again")
    version_tags = {
        **said,
        tags.DIGEST: manifest["digest"],
        tags.VARIANT: candidate.variant,
        tags.IMPORTED_FROM: origin,
        ARCHIVE_TAG: manifest["seal"],
    }
    if signer:
        version_tags[SIGNER_TAG] = signer
    model = logged_model(
        registry, candidate.variant, run.info.experiment_id, run.info.run_id, version_tags
    )
    fill(registry, model, model_folder, str(manifest["digest"]), folder)
    registry.ensure_model(
        manifest["name"],
        f"{manifest['name']}: imported versions; an alias is set by `promote` alone.",
        {},
    )
    # before a version is there: no other user can give it a history
    AliasStore(registry, manifest["name"]).claim()
    evidence_tags = {
        tags.MODEL_ID: model.model_id,
        tags.EVALUATION: report.uri,
        tags.EVIDENCE_DIGEST: report.digest,
    }
    text = _card(manifest, report, model.model_id, "…")
    version, _ = versions.ensure(
        registry, manifest["name"], model.model_id, {**version_tags, **evidence_tags}, text
    )
    describe(folder, manifest, registry, version)
    return version


def describe(
    folder: Path, manifest: Mapping[str, Any], registry: RegistryClient, version: Version
) -> None:
    """Give a version of this archive a card with its own name, number and links."""
    if version.tags.get(ARCHIVE_TAG) != manifest["seal"] or version.model_id is None:
        return
    # taken off by somebody; `evaluate` gives it evidence again
    if tags.EVALUATION not in version.tags:
        return
    report = evidence_module.parse(version.tags[tags.EVALUATION], report_text(folder, manifest))
    if report.digest != version.tags.get(tags.EVIDENCE_DIGEST):  # it has other evidence by now
        return
    text = _card(manifest, report, version.model_id, version.number)
    if version.description != text:
        registry.describe(version.name, version.number, text)


def _card(manifest: Mapping[str, Any], report: Evidence, model_id: str, number: int | str) -> str:
    candidate = report.of(None, manifest["digest"])
    assert candidate is not None, "checked before anything was sent"
    here = replace(candidate, model_id=model_id, uri=f"models:/{model_id}")
    return card.render(
        manifest["name"],
        number,
        here,
        report,
        manifest["tags"],
        manifest.get("command") or "not recorded",
    )
