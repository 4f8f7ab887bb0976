"""Where a logged model comes from: the snapshot behind it, and what is written on it, the same for
both variants.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import mlflow
from mlflow.tracking import MlflowClient

from steps.config.root import Config
from steps.core import digest, tags
from steps.core.errors import StepError
from steps.core.model_uri import model_id_of
from steps.pipeline.artifact_lookup import read_text
from steps.pipeline.definition import StepRun
from steps.snapshots.manifest import Snapshot


def read_snapshot(uri: str) -> Snapshot:
    """The snapshot that a ``snapshot_uri`` points at.

    Raises:
        StepError: it is not there, or is not a snapshot.
    """
    try:
        return Snapshot.from_json(read_text(uri))
    except ValueError as error:
        expected = "runs:/<run>/snapshot.json of a finished fetch_model"
        raise StepError(
            f"snapshot_uri={uri!r}: expected {expected} ({error}); leave it out to take the newest"
            " that fits"
        ) from error


def snapshot_digest(uri: str) -> str:
    """Digest of the snapshot that a ``snapshot_uri`` points at: a branch and its commit have the
    same.
    """
    return read_snapshot(uri).digest


def tags_of(
    variant: str, snapshot: Snapshot, run: StepRun, capabilities: Sequence[str]
) -> dict[str, str]:
    """Tags of a LoggedModel.

    Args:
        variant: ``transformers`` or ``onnx``.
        snapshot: what it was made from.
        run: the step that logs it.
        capabilities: what a caller must know, one clause each.
    """
    return {
        tags.VARIANT: variant,
        tags.FINGERPRINT: run.fingerprint,
        tags.SNAPSHOT_DIGEST: snapshot.digest,
        tags.SNAPSHOT_REVISION: snapshot.revision,
        tags.LICENCE: snapshot.licence or "unknown",
        tags.CAPABILITIES: "; ".join(capabilities),
    }


def metadata_of(
    config: Config, snapshot: Snapshot, capabilities: Mapping[str, Any]
) -> dict[str, Any]:
    """Metadata in the model's MLmodel file, which travels with its bytes.

    Args:
        config: names the model's homepage.
        snapshot: what it was made from.
        capabilities: what was found of it: ``limits`` and ``template``.
    """
    return {
        "context_length": capabilities["limits"]["context_length"],
        "capabilities": dict(capabilities),
        "source": f"{snapshot.source}:{snapshot.name}",
        "revision": snapshot.revision,
        "licence": snapshot.licence or "unknown",
        "homepage": config.model.homepage or "",
        "snapshot_digest": snapshot.digest,
    }


def digest_of_bytes(uri: str) -> str:
    """``sha256:…`` over the files of a logged model, wherever its artifacts are."""
    with TemporaryDirectory() as folder:
        local = Path(mlflow.artifacts.download_artifacts(artifact_uri=uri, dst_path=folder))
        return digest.of_folder(local)


def tag_digest(uri: str) -> None:
    """Tag a freshly logged model with the digest of its bytes as they stand in the artifact
    store.
    """
    MlflowClient().set_logged_model_tags(model_id_of(uri), {tags.DIGEST: digest_of_bytes(uri)})
