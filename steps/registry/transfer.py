"""What an export and an import have in common: their folder, their result, their errors."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlflow.exceptions import MlflowException

from steps.config.root import Config
from steps.core.errors import ConfigError, StepError
from steps.core.redaction import redact
from steps.registry.retries import first_line


@dataclass(frozen=True)
class Transfer:
    """What an export or an import did, or would do."""

    name: str
    version: int | None
    digest: str
    files: int
    size: int  # bytes
    archive: str
    already: bool  # the target server has these bytes in this model
    dry_run: bool

    def to_json(self) -> dict[str, Any]:
        return {"schema": "slm-promote/transfer/1", **vars(self)}


@contextmanager
def one_line(what: str) -> Iterator[None]:
    """Turn errors of the disk and of artifact stores into one line."""
    try:
        yield
    except (OSError, MlflowException) as error:
        reason = (
            error.strerror if isinstance(error, OSError) and error.strerror else first_line(error)
        )
        raise StepError(f"{what}: {redact(reason)}; mend that and run it again") from error


def folder_of(config: Config) -> Path:
    """The folder ``archive``."""
    if not config.archive:
        raise ConfigError("archive", config.archive, "a folder", "pass archive=…")
    return Path(config.archive).expanduser().absolute()
