"""What is known of a candidate before it is loaded: its name, its sources and its size."""

from dataclasses import dataclass
from typing import Any

import mlflow
from mlflow.models import Model
from mlflow.tracking import MlflowClient

from steps.core import tags
from steps.core.artifact_places import Places
from steps.core.model_uri import pinned
from steps.snapshots.provenance import digest_of_bytes


@dataclass(frozen=True)
class Description:
    """A model URI, resolved."""

    uri: str  # as it was given
    role: str  # candidate or incumbent
    model_id: str  # m-…, or empty where the URI names none
    variant: str
    digest: str  # sha256:… over the logged files
    licence: str | None
    size_bytes: int | None
    snapshot_digest: str | None
    snapshot_revision: str | None
    source: str | None  # repository or package that the weights come from
    version: str | None = None  # registry version, where the URI names one

    @property
    def load_uri(self) -> str:
        """What is loaded: the very model that was described, even if an alias has moved since."""
        return f"models:/{self.model_id}" if self.model_id else self.uri

    @property
    def name(self) -> str:
        """Short name for logs and progress."""
        return f"{self.variant}-{self.model_id[-8:]}" if self.model_id else self.variant


def describe(uri: str, role: str = "candidate", places: Places | None = None) -> Description:
    """Resolve a model URI (``models:/m-…``, ``models:/name/3``, ``models:/name@alias``,
    ``runs:/…``).

    Args:
        uri: of the model.
        role: in the evaluation.
        places: where its files must lie; None follows any address.

    Raises:
        StepError: its files lie elsewhere.
        mlflow.exceptions.MlflowException: there is no such model.
    """
    fixed, version = pinned(uri)
    if places:
        places.check(fixed, MlflowClient())
    model = Model.load(fixed)
    known: dict[str, str] = {}
    if model.model_id:
        known = dict(mlflow.get_logged_model(model.model_id).tags or {})
    metadata: dict[str, Any] = model.metadata or {}
    digest = known.get(tags.DIGEST) or digest_of_bytes(fixed)  # what another tool logged has no tag
    return Description(
        uri=uri,
        role=role,
        model_id=model.model_id or "",
        variant=known.get(tags.VARIANT) or _variant(model.flavors),
        digest=digest if digest.startswith("sha256:") else f"sha256:{digest}",
        licence=known.get(tags.LICENCE) or metadata.get("licence"),
        size_bytes=model.model_size_bytes,
        snapshot_digest=known.get(tags.SNAPSHOT_DIGEST),
        snapshot_revision=known.get(tags.SNAPSHOT_REVISION),
        source=known.get(tags.SOURCE) or metadata.get("source"),
        version=version,
    )


def _variant(flavors: dict[str, Any]) -> str:
    """The variant that the flavors speak for, where no tag does."""
    if "transformers" in flavors:
        return "transformers"
    artifacts = str(flavors.get("python_function", {}).get("artifacts", ""))
    return "onnx" if "onnx" in artifacts else "pyfunc"
