"""A candidate's files, fetched by the process that may ask the tracking server: the candidate's own
may not.
"""

from pathlib import Path

import mlflow
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
from mlflow.store.artifact.local_artifact_repo import LocalArtifactRepository

from steps.core import digest
from steps.core.artifact_places import Places, address_of


def fetch(uri: str, folder: Path, places: Places | None = None) -> Path:
    """The folder of a logged model on this machine; where its artifact store is local nothing is
    copied.

    Args:
        uri: of the model.
        folder: gets what must be downloaded; made where it is missing.
        places: where the model's files must lie; None follows any address, for a model that the
            caller made.

    Raises:
        StepError: its files lie elsewhere, or some of them are links that lead out of its folder,
            devices, sockets or pipes.
        mlflow.exceptions.MlflowException: there is no such model, or its files cannot be fetched.
        OSError: they cannot be written here.
    """
    client = mlflow.MlflowClient()
    address = places.check(uri, client) if places else address_of(uri, client)
    if isinstance(get_artifact_repository(address), LocalArtifactRepository):
        local = Path(mlflow.artifacts.download_artifacts(address)).resolve()
        digest.files_of(local, links_outside=False)
        return local
    folder.mkdir(parents=True, exist_ok=True)
    return Path(mlflow.artifacts.download_artifacts(address, dst_path=str(folder))).resolve()
