"""A candidate's files, fetched by the process that may ask the tracking server: the candidate's own
may not.
"""

from pathlib import Path

import mlflow
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
from mlflow.store.artifact.local_artifact_repo import LocalArtifactRepository


def fetch(uri: str, folder: Path) -> Path:
    """The folder of a logged model on this machine; where its artifact store is local nothing is
    copied.

    Args:
        uri: of the model.
        folder: gets what must be downloaded; made where it is missing.

    Raises:
        mlflow.exceptions.MlflowException: there is no such model, or its files cannot be fetched.
        OSError: they cannot be written here.
    """
    repository = get_artifact_repository(uri)
    if isinstance(getattr(repository, "repo", repository), LocalArtifactRepository):
        return Path(mlflow.artifacts.download_artifacts(uri)).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    return Path(mlflow.artifacts.download_artifacts(uri, dst_path=str(folder))).resolve()
