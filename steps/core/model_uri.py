"""Model URIs: their forms, and the logged model behind one."""

import re
from collections.abc import Callable

import mlflow
from mlflow.exceptions import MlflowException
from mlflow.store.artifact.utils.models import _parse_model_uri
from mlflow.tracking import MlflowClient

from steps.core import search
from steps.core.errors import StepError

LOGGED_MODEL = re.compile(r"models:/(?P<id>m-[^/@]+)")
VERSION = re.compile(r"models:/(?P<name>[^/@]+)/(?P<number>\d+)")
# copies of copies that are followed; a version cannot be older than what it is a copy of, so this
# never ends a true chain
MOST_COPIES = 16


def logged_model_of(source: str, source_of: Callable[[str, int], str | None]) -> str | None:
    """Id of the logged model that a version's source leads to, through copies made by
    ``copy_model_version``.

    Args:
        source: of the version, such as ``models:/m-…`` or, for a copy, ``models:/<name>/<number>``.
        source_of: the source of another version; None where there is none.

    Returns:
        ``m-…``, or None where the source leads to a run's artifacts, a folder, or a version that is
        gone.
    """
    at: str | None = source
    for _ in range(MOST_COPIES):
        if at is None:
            return None
        if found := LOGGED_MODEL.fullmatch(at):
            return found["id"]
        copied = VERSION.fullmatch(at)
        if copied is None:
            return None
        at = source_of(copied["name"], int(copied["number"]))
    return None


def model_id_of(uri: str) -> str:
    """The LoggedModel behind a ``models:/`` or ``runs:/`` URI.

    Raises:
        StepError: there is none.
    """
    try:
        if uri.startswith("runs:/"):
            return _model_id_of_run(uri)
        parsed = _parse_model_uri(uri)
        if parsed.model_id:
            return str(parsed.model_id)
        client, name = MlflowClient(), str(parsed.name)
        if parsed.alias:
            version = client.get_model_version_by_alias(name, parsed.alias)
        else:
            version = client.get_model_version(name, str(parsed.version or _latest(name)))
    except (MlflowException, OSError) as error:
        raise StepError(
            f"{uri} cannot be read: {error}; the Models page of the UI shows what there is"
        ) from error
    if (version.status or "READY") != "READY":
        raise StepError(
            f"{uri} cannot be used: its status is {version.status}; see its page in the UI, and"
            " register the model again"
        )
    # SQL stores keep it in the source only
    model_id = version.model_id or logged_model_of(version.source or "", _source_of)
    if not model_id:
        raise StepError(
            f"{uri} has no logged model behind it; log it with log_transformers or log_onnx_wrapper"
        )
    return str(model_id)


def _source_of(name: str, number: int) -> str | None:
    try:
        return str(MlflowClient().get_model_version(name, str(number)).source or "")
    except MlflowException as error:
        if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "NOT_FOUND"):
            return None
        raise


def _model_id_of_run(uri: str) -> str:
    model_id = mlflow.models.Model.load(uri).model_id
    if not model_id:
        raise StepError(
            f"{uri} has no logged model behind it; log it with log_transformers or log_onnx_wrapper"
        )
    return str(model_id)


def _latest(name: str) -> int:
    versions = MlflowClient().search_model_versions(search.equals("name", name))
    if not versions:
        raise StepError(
            f"models:/{name} has no version yet; register one: mlflow run . -e register"
        )
    return max(int(version.version) for version in versions)
