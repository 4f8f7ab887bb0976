"""Versions that this project can judge, and a clear end for those that it cannot.

A version is judged by the bytes of the logged model behind it. MLflow's registry also holds
versions that are copies of others, that point at a run's artifacts, that are still being made, and
whose making failed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from steps.core import tags
from steps.core.model_uri import logged_model_of, parse
from steps.registry.client import RegistryClient
from steps.registry.model_version import Version
from steps.registry.result import RefusedError

READY, PENDING, FAILED = "READY", "PENDING_REGISTRATION", "FAILED_REGISTRATION"
ENDS: Mapping[str, str] = {
    PENDING: (
        "its registration is not finished (PENDING_REGISTRATION); wait for it, or delete the"
        " version if whoever made it is gone"
    ),
    FAILED: (
        "its registration failed (FAILED_REGISTRATION); delete the version and register the model"
        " again"
    ),
}


def usable(registry: RegistryClient, version: Version) -> Version:
    """The version with the id of its logged model, also where it is a copy of another version.

    Args:
        registry: the tracking server.
        version: as the server gives it.

    Raises:
        RefusedError: nothing can ever be judged of it as it is; says what it is and what to do,
            which is never to evaluate it.
    """
    if version.status != READY:
        message = f": {version.status_message}" if version.status_message else ""
        raise RefusedError(
            f"{version.uri}: {ENDS.get(version.status, f'its status is {version.status}')}{message}"
        )
    if version.model_id is not None:
        return version

    def source_of(name: str, number: int) -> str | None:
        source = registry.version(name, number)
        return source.source if source else None

    model_id = logged_model_of(version.source, source_of)
    if model_id is not None:
        return replace(version, tags={**version.tags, tags.MODEL_ID: model_id})
    if (source := parse(version.source)) and source.version:
        raise RefusedError(
            f"{version.uri}: it is a copy of {version.source}, which leads to no logged model; it"
            " cannot be evaluated or promoted: delete it and register the model anew"
        )
    raise RefusedError(
        f"{version.uri}: there is no logged model behind it (its source is"
        f" {version.source or 'empty'}), so its bytes are unknown; it cannot be evaluated or"
        " promoted: log the model with `mlflow run .` or mlflow.pyfunc.log_model(name=…), and"
        " register models:/m-…"
    )
