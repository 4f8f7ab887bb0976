"""Model URIs: their forms, and the logged model behind one."""

import re
from collections.abc import Callable
from dataclasses import dataclass

import mlflow
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from steps.core import search
from steps.core.errors import StepError

FORM = re.compile(
    r"models:/(?:(?P<model_id>m-[^/@]+)"
    r"|(?P<name>[^/]+?)(?:/(?P<version>\d+|(?i:latest))|@(?P<alias>[^/@]+))?)"
)
# copies of copies that are followed; a version cannot be older than what it is a copy of, so this
# never ends a true chain
MOST_COPIES = 16


@dataclass(frozen=True)
class ModelUri:
    """A ``models:/`` URI: a logged model, or a registered model and perhaps one of its versions."""

    model_id: str | None = None  # m-…
    name: str | None = None
    version: str | None = None  # a number, or "latest"
    alias: str | None = None


def parse(uri: str) -> ModelUri | None:
    """The parts of ``models:/m-…``, ``models:/<name>``, ``models:/<name>/<version>`` or
    ``models:/<name>@<alias>``; None for any other text.
    """
    match = FORM.fullmatch(uri)
    return ModelUri(**match.groupdict()) if match else None


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
        copied = parse(at or "")
        if copied is None or copied.model_id:
            return copied.model_id if copied else None
        if copied.name is None or not (copied.version or "").isdigit():
            return None
        at = source_of(copied.name, int(str(copied.version)))
    return None


def model_id_of(uri: str) -> str:
    """The LoggedModel behind a ``models:/`` or ``runs:/`` URI.

    Raises:
        StepError: there is none.
    """
    try:
        if uri.startswith("runs:/"):
            return _known(uri, mlflow.models.Model.load(uri).model_id)
        parsed = _parsed(uri)
        if parsed.model_id:
            return parsed.model_id
        version = _version(parsed)
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
    return _known(uri, version.model_id or logged_model_of(version.source or "", _source_of))


def pinned(uri: str) -> tuple[str, str | None]:
    """A model URI with an alias replaced by the version that it points at now, and that version.

    Returns:
        The URI, and the number of the registered version where it names one.

    Raises:
        mlflow.exceptions.MlflowException: there is no such alias.
    """
    parsed = parse(uri)
    if parsed is None or not (parsed.version or parsed.alias):
        return uri, None
    number = str(_version(parsed).version)
    return f"models:/{parsed.name}/{number}", number


def _parsed(uri: str) -> ModelUri:
    parsed = parse(uri)
    if parsed is None or not (parsed.model_id or parsed.version or parsed.alias):
        raise StepError(
            f"{uri} is not the URI of a model; expected models:/m-…, models:/<name>/<version>,"
            " models:/<name>@<alias> or runs:/<run>/<name>"
        )
    return parsed


def _version(uri: ModelUri) -> ModelVersion:
    client, name = MlflowClient(), str(uri.name)
    if uri.alias:
        return client.get_model_version_by_alias(name, uri.alias)
    number = str(uri.version)
    return client.get_model_version(name, number if number.isdigit() else str(_latest(name)))


def _known(uri: str, model_id: str | None) -> str:
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


def _latest(name: str) -> int:
    versions = MlflowClient().search_model_versions(search.equals("name", name))
    if not versions:
        raise StepError(
            f"models:/{name} has no version yet; register one: mlflow run . -e register"
            " --env-manager local"
        )
    return max(int(version.version) for version in versions)
